# TRM-ML on PASCAL VOC 2012, one positive label known per image. The
# literature of this setting counts difficult objects as positive.
_base_ = '../trm_ml_voc2012.py'

train_dataloader = dict(
    dataset=dict(known='single_positive', dataset=dict(difficult='positive')))
val_dataloader = dict(dataset=dict(difficult='positive'))
test_dataloader = dict(dataset=dict(difficult='positive'))
