_base_ = '../trm_ml_vg200.py'
