# TRM-ML with random initial queries and attention, at the attention scale that
# was best for the random query decoder.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(region=dict(start='random', attention_scale=3.)))
