# What all sets of photographs share: 448 px, loaders, metrics.
# Another size: image_size = 224 at the top level of a config. (Images are
# normalised as the tower needs it; see trm_ml_mm.CLIPClassifier.)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=448,
        crop_ratio_range=(0.5, 1.0),
        interpolation='bicubic'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='Resize',
        scale=(448, 448),
        interpolation='bicubic'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    worker_init_fn=dict(type='trm_ml_mm.seed_worker'),
    dataset=dict(
        type='trm_ml_mm.PartialLabelDataset',
        known=0.1,  # a proportion, 'single_positive', 'all', or a mask file
        seed=None,  # of the mask; None: the protocol's own
        dataset=dict(pipeline=train_pipeline)),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    dataset=dict(test_mode=True, pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
# The batch size, of all ranks, that the learning rate was chosen for. It counts
# with tools/train.py --auto-scale-lr alone.
auto_scale_lr = dict(base_batch_size=32, enable=False)

val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP'),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
