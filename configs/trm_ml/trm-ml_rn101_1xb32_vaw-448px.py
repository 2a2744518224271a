_base_ = '../trm_ml_vaw.py'
