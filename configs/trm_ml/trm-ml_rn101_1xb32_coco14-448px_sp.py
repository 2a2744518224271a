# TRM-ML on MS-COCO 2014, one positive label known per image.
_base_ = '../trm_ml_coco.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
