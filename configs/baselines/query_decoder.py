# Baseline: category queries with free output vectors (Query2Label), no text.
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/train.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(prompt=dict(learnable=False), text_residual=0.),
    head=dict(
        _delete_=True,
        type='trm_ml_mm.QueryDecoderHead',
        loss={{_base_.model.head.loss}},
        assume_negative={{_base_.model.head.assume_negative}},
        start='random',
        self_attention=4,
        dropout=0.5,
        region=dict(attention_scale=3., mlp_layers=2),
        logit_scale=5.),
)
# Dropout and weight decay: else it learns few labels by heart.
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=1.))
