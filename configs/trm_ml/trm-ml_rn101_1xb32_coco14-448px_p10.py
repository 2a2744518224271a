_base_ = '../trm_ml_coco.py'
