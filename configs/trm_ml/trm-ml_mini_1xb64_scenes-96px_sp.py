# TRM-ML on the built-in scenes, one positive label known per image.
_base_ = '../trm_ml_scenes.py'

train_dataloader = dict(dataset=dict(known='single_positive'))
