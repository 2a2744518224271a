# TRM-ML without a text feature that may move.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(backbone=dict(text_residual=0.))
