_base_ = '../trm_ml_cub.py'
