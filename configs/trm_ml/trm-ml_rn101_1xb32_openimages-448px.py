_base_ = '../trm_ml_openimages.py'
