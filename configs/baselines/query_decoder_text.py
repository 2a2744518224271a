# Baseline: category queries with free output vectors (Query2Label), which all
# start as CLIP's text features.
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/train.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(prompt=dict(learnable=False), text_residual=0.),
    head=dict(
        _delete_=True,
        type='trm_ml_mm.QueryDecoderHead',
        loss={{_base_.model.head.loss}},
        assume_negative={{_base_.model.head.assume_negative}},
        start='text',
        self_attention=4,
        region=dict(num_heads=1, attention_scale=25., mlp_layers=2),
        logit_scale=5.),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
