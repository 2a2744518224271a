# TRM-ML with predictions from the mean of both levels, not the query level.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(scores='mean'))
