# OpenAI's ViT-L/14 at 336 px, its largest.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(arch='ViT-L-14-336'))
