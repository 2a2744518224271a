# TRM-ML with a learned residual on the text features.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(text_residual=0.3))
