# TRM-ML whose pseudo-labels do not rely on the ratio of positives among the
# known labels, which misleads when a model proposed what is known.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(head=dict(prototypes=dict(class_ratio=0.)))
