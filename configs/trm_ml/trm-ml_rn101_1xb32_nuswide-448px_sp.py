# TRM-ML on NUS-WIDE 81, one positive label known per image.
_base_ = '../trm_ml_nuswide.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
