# SigLIP 2, ViT-B/16 at 512 px.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(arch='ViT-B-16-SigLIP2-512'))
