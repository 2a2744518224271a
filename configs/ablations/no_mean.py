# TRM-ML with predictions from the query level alone, not the mean of both.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(scores='query'))
