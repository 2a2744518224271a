# TRM-ML on PASCAL VOC 2007, one positive label known per image.
_base_ = '../trm_ml_voc2007.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
