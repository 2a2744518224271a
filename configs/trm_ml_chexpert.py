# TRM-ML on the 14 findings of CheXpert with the labels that reports give; the
# rest is unknown.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/chexpert.py',
    '_base_/models/trm_ml_rn101_not_at_random.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(prompt=dict(context='a chest x-ray showing')))
