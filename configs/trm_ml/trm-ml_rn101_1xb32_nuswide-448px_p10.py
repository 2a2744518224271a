_base_ = '../trm_ml_nuswide.py'
