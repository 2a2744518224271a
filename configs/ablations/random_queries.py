# TRM-ML with queries and attention that start at random, as sharp as the random
# query decoder's search found best.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(region=dict(start='random', sharpness=3.)))
