_base_ = '../trm_ml_scenes.py'
