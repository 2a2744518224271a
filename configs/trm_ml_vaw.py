# TRM-ML on the 620 attributes of VAW with the labels that people gave; the rest
# is unknown.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/vaw.py',
    '_base_/models/trm_ml_rn101_not_at_random.py',
    '_base_/schedules/adamw_cosine.py',
]

# An attribute is no thing: "a photo of something wooden".
model = dict(backbone=dict(prompt=dict(context='a photo of something')))
