# TRM-ML with more positive pseudo-labels.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(prototypes=dict(positive_ratio=0.9)))
