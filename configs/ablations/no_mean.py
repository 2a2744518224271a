# TRM-ML without the mean of levels: predicted from the query level alone.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(scores='query'))
