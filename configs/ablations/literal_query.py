# TRM-ML with the query level as the MLP alone, without the region.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(region=dict(residual=False)))
