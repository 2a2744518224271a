# TRM-ML with queries and attention that start at random.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(region=dict(start='random')))
