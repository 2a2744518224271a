# Baseline: learned prompts, one per category, matched with the whole image
# (CoOp).
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/train.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(
        pooled=True,
        # One learned token. The words "a photo of a", or more tokens, learn few
        # labels by heart in a longer training.
        prompt=dict(context=1, learnable=True, class_specific=True),
        text_residual=0.),
    head=dict(
        _delete_=True,
        type='trm_ml_mm.TextImageHead',
        loss={{_base_.model.head.loss}},
        assume_negative={{_base_.model.head.assume_negative}},
        logit_scale=3.),
)
# `lr` is applied after `epochs`, so a longer training keeps it: with a lower
# rate text-image is worse (docs/tuning.md).
optim_wrapper = dict(optimizer=dict(lr=2e-1))
lr = 2e-1
