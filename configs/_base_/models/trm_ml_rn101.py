# TRM-ML on CLIP RN101 at 448 px. The classes are those of the data set, unless
# a config names them. Their number, joint width and normalisation follow
# from the backbone.
model = dict(
    type='trm_ml_mm.CLIPClassifier',
    backbone=dict(
        type='trm_ml_mm.CLIPPromptBackbone',
        arch='RN101',
        weights='default',  # OpenAI's, if there are; or another tag, or a file
        classes='dataset',
        image_size=None,  # as the pipelines, or as the tower needs it
        align=True,  # a real CLIP's joint space is narrow
        # Learned prompts change nothing: see ablations/learned_prompts.py
        prompt=dict(context='a photo of a', pair=False, learnable=False),
        text_residual=0.),  # nor does this: see ablations/residual.py
    head=dict(
        type='trm_ml_mm.TextRegionMatchingHead',
        region=dict(num_heads=1, attention_scale=25., mlp_layers=2),
        loss=dict(
            type='trm_ml_mm.PartialAsymmetricLoss',
            gamma_pos=1.,
            gamma_neg=2.,
            clip=0.05),
        distillation=dict(
            type='trm_ml_mm.RegionDistillationLoss', loss_weight=2.),
        prototypes=dict(
            type='trm_ml_mm.MultimodalPrototypes',
            history=0.25,
            warmup_images=None),  # one pass over the training set
        pseudo_weight=4.,
        assume_negative=2.,  # only in classes whose negatives are not labelled
        contrast=None,  # it changes nothing: see ablations/contrast.py
        relations=20.,
        logit_scale=8.,
        scores='query'),
)
