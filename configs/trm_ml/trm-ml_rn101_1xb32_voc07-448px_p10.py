_base_ = '../trm_ml_voc2007.py'
