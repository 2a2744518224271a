# TRM-ML without relations between categories.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(relations=0.))
