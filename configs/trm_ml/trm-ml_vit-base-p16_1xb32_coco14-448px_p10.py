_base_ = '../trm_ml_vit_coco.py'
