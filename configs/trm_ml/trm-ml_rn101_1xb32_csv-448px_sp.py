# TRM-ML on own images, one positive label known per image.
_base_ = '../trm_ml_csv.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
