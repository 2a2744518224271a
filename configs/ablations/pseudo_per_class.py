# TRM-ML with positive pseudo-labels cut per class.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(prototypes=dict(per_class=True)))
