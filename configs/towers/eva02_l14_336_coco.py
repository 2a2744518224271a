# EVA-02, ViT-L/14 at 336 px.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(arch='EVA02-L-14-336'))
