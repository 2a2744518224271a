# The built-in set: rendered scenes, 30 named categories, nothing to download.
# Another set of categories: scene_set = 1 at the top level of a config.
train_pipeline = [
    dict(type='trm_ml_mm.RenderScene'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='trm_ml_mm.RenderScene'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # scenes are in memory: a worker would cost more
    persistent_workers=False,
    worker_init_fn=dict(type='trm_ml_mm.seed_worker'),
    dataset=dict(
        type='trm_ml_mm.PartialLabelDataset',
        known=0.1,  # a proportion, 'single_positive', 'all', or a mask file
        seed=None,  # of the mask; None: the protocol's own
        dataset=dict(
            type='trm_ml_mm.Scenes',
            split='train',
            num_images=2000,
            size=96,
            pipeline=train_pipeline)),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='trm_ml_mm.Scenes',
        split='val',
        num_images=1000,
        size=96,
        test_mode=True,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='trm_ml_mm.Scenes',
        split='test',
        num_images=2000,
        size=96,
        test_mode=True,
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
# The batch size, of all ranks, that the learning rate was chosen for. It counts
# with tools/train.py --auto-scale-lr alone.
auto_scale_lr = dict(base_batch_size=64, enable=False)

val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP'),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
