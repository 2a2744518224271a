# TRM-ML on the built-in scenes, 10% of the labels known.
# Another proportion:
#   --cfg-options train_dataloader.dataset.known=0.5
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/scenes.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='trm_ml_mm.CLIPPromptBackbone',
        arch='mini',
        classes={{_base_.classes}},
        image_size=96,
        prompt=dict(context='a photo of a', pair=False, learnable=True),
        text_residual=0.3),
    head=dict(
        type='trm_ml_mm.TextRegionMatchingHead',
        num_classes={{_base_.num_classes}},
        dim=128,
        region=dict(num_heads=1, sharpness=40., mlp_layers=2),
        loss=dict(
            type='trm_ml_mm.PartialAsymmetricLoss',
            gamma_pos=1.,
            gamma_neg=2.,
            clip=0.05),
        distillation=dict(
            type='trm_ml_mm.RegionDistillationLoss', loss_weight=0.3),
        prototypes=dict(
            type='trm_ml_mm.MultimodalPrototypes', warmup_images=6000),
        pseudo_weight=1.,
        contrast=dict(
            type='trm_ml_mm.MultimodalContrastiveLoss', loss_weight=0.1),
        logit_scale=10.,
        scores='query'),
)
