# TRM-ML on VG-200, one positive label known per image.
_base_ = '../trm_ml_vg200.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
