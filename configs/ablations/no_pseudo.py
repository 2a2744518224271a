# TRM-ML without pseudo-labels.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(pseudo_weight=0.))
