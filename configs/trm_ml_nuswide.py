# TRM-ML on NUS-WIDE 81, official split, 10% of the labels known.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/nuswide.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(classes='nuswide'))
