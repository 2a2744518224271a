_base_ = '../trm_ml_lvis.py'
