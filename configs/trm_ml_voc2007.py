# TRM-ML on PASCAL VOC 2007, 10% of the labels known.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/voc2007.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(classes='voc'))
