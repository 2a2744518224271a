_base_ = '../trm_ml_resnet50_coco.py'
