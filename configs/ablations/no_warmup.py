# TRM-ML with pseudo-labels from the first batch.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(prototypes=dict(warmup_images=0)))
