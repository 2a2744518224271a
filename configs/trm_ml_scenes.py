# TRM-ML on the built-in scenes, 10% of the labels known.
# Another proportion, one positive label an image, another mask:
#   --cfg-options train_dataloader.dataset.known=0.5
#   --cfg-options train_dataloader.dataset.known=single_positive
#   --cfg-options train_dataloader.dataset.seed=1
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
        classes='dataset',
        image_size=96,
        prompt=dict(context='a photo of a', pair=False, learnable=True),
        text_residual=0.3),
    head=dict(
        type='trm_ml_mm.TextRegionMatchingHead',
        num_classes='dataset',
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
            type='trm_ml_mm.MultimodalPrototypes',
            warmup_images=None),  # one pass over the training set
        pseudo_weight=1.,
        assume_negative=0.5,  # while no negative of a class is known
        contrast=dict(
            type='trm_ml_mm.MultimodalContrastiveLoss', loss_weight=0.1),
        logit_scale=10.,
        scores='query'),
)
