# TRM-ML on CUB-200-2011, one positive attribute known per image.
_base_ = '../trm_ml_cub.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
