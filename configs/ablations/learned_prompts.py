# TRM-ML with learned context tokens, which start as "a photo of a".
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(prompt=dict(learnable=True)))
