# MobileCLIP2-S2, which takes any size: 448 px, as the data set's config.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(arch='MobileCLIP2-S2'))
