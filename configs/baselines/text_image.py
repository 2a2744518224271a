# Baseline: learned prompts, one per category, matched with the whole image
# (CoOp).
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/train.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(
        pooled=True,
        prompt=dict(learnable=True, class_specific=True),
        text_residual=0.),
    head=dict(
        _delete_=True,
        type='trm_ml_mm.TextImageHead',
        loss={{_base_.model.head.loss}},
        assume_negative={{_base_.model.head.assume_negative}},
        logit_scale=3.),
)
# At 1e-1 it is better after 10 epochs, and loses that in a longer training.
# `lr` is applied after `epochs`, so it keeps the rate there: with a lower one
# text-image loses twice as much (docs/tuning.md).
optim_wrapper = dict(optimizer=dict(lr=3e-2))
lr = 3e-2
