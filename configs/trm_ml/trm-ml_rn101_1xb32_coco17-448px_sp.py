# TRM-ML on MS-COCO 2017, one positive label known per image.
_base_ = '../trm_ml_coco2017.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
