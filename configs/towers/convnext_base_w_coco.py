# LAION's ConvNeXt-B, which takes any size: 448 px, as the data set's config.
_base_ = ['../trm_ml_coco.py']

model = dict(backbone=dict(
    arch='convnext_base_w',
    # The best of its tags on ImageNet (71.5%, against 70.8% of the first one).
    weights='laion2b_s13b_b82k_augreg'))
