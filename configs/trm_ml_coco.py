# TRM-ML on MS-COCO 2014, CLIP RN101 at 448 px, 10% of the labels known.
# Another proportion, mask or place of the data, one line each:
#   --cfg-options train_dataloader.dataset.known=0.5
#   --cfg-options train_dataloader.dataset.seed=1
#   --cfg-options model.backbone.weights=/path/to/RN101.pt
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/coco14.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(
        type='trm_ml_mm.CLIPPromptBackbone',
        arch='RN101',
        weights='openai',  # or a file: a state dict, or OpenAI's RN101.pt
        classes={{_base_.classes}},
        image_size={{_base_.image_size}},
        prompt=dict(context='a photo of a', pair=False, learnable=True),
        text_residual=0.3),
    head=dict(
        type='trm_ml_mm.TextRegionMatchingHead',
        num_classes={{_base_.num_classes}},
        dim=512,
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
            history=4096,
            warmup_images=82783),  # one epoch
        pseudo_weight=1.,
        contrast=dict(
            type='trm_ml_mm.MultimodalContrastiveLoss', loss_weight=0.1),
        logit_scale=10.,
        scores='query'),
)
