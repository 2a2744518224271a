# TRM-ML on MS-COCO 2017, 10% of the labels known.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/coco2017.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(classes='coco'))
