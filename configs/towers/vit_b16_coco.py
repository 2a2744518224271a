# OpenAI's ViT-B/16 at 224 px; image_size = 448 resizes its position embedding.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(arch='ViT-B-16'))
