# TRM-ML on PASCAL VOC 2012, 10% of the labels known.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/voc2012.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(classes='voc'))
