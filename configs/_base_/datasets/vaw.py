# VAW, 620 attributes of single objects, each a box of an image. Labels that
# nobody gave are unknown in training and in the metrics; no further ones are
# hidden.
_base_ = 'clip448.py'

_root = 'data/vaw/'
_object = [
    dict(type='LoadImageFromFile'),
    dict(type='trm_ml_mm.CropBox', margin=0.),
]

train_dataloader = dict(
    dataset=dict(
        known='all',
        dataset=dict(
            type='trm_ml_mm.VAW',
            data_root=_root,
            ann_file=['train_part1.json', 'train_part2.json'],
            pipeline=[
                *_object,
                dict(
                    type='RandomResizedCrop',
                    scale=448,
                    crop_ratio_range=(0.5, 1.0),
                    interpolation='bicubic'),
                # No RandAugment: it changes colours, and they are labels.
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='PackInputs'),
            ],
        )))
_pipeline = [
    *_object,
    dict(
        type='Resize',
        scale=(448, 448),
        interpolation='bicubic'),
    dict(type='PackInputs'),
]
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.VAW',
        data_root=_root,
        ann_file='val.json',
        pipeline=_pipeline,
    ))
test_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.VAW',
        data_root=_root,
        ann_file='test.json',
        pipeline=_pipeline,
    ))
# VAW's own metrics: mAP, mR@15, F1@15 and mA.
val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP', scored='both'),
    dict(type='trm_ml_mm.AttributeMetrics', topk=15, threshold=0.5),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
