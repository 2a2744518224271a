# TRM-ML without prototypes: pseudo-labels from the matching logit alone.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(prototypes=dict(scale=0.)))
