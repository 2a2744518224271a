# TRM-ML with a positive and a negative prompt, both learned.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(prompt=dict(pair=True, learnable=True)))
