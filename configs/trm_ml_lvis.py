# TRM-ML on LVIS v1 with the labels that people gave; the rest is unknown.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/lvis.py',
    '_base_/models/trm_ml_rn101_not_at_random.py',
    '_base_/schedules/adamw_cosine.py',
]
