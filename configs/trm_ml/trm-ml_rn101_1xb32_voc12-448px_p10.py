_base_ = '../trm_ml_voc2012.py'
