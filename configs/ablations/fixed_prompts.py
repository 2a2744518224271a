# TRM-ML with the fixed prompt "a photo of a".
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(prompt=dict(learnable=False)))
