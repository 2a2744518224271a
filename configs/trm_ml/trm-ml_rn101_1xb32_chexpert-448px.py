_base_ = '../trm_ml_chexpert.py'
