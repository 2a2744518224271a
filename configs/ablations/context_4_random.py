# TRM-ML with 4 context tokens that start at random.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(prompt=dict(context=4)))
