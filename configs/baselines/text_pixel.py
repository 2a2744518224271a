# Baseline: learned prompts matched with every location (DualCoOp's formula),
# 16 context tokens for each category.
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/train.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(
        prompt=dict(context=16, learnable=True, class_specific=True),
        text_residual=0.),
    head=dict(
        _delete_=True,
        type='trm_ml_mm.TextPixelHead',
        loss={{_base_.model.head.loss}},
        assume_negative={{_base_.model.head.assume_negative}},
        logit_scale=7.),
)
optim_wrapper = dict(optimizer=dict(lr=3e-1))
