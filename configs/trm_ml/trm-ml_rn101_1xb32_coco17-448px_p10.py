_base_ = '../trm_ml_coco2017.py'
