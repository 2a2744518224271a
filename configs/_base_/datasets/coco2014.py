# MS-COCO 2014 as the official download leaves it.
_base_ = 'clip448.py'

_root = 'data/coco/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.CocoMultiLabel',
            data_root=_root,
            images='all',
            ann_file='annotations/instances_train2014.json',
            data_prefix='train2014',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.CocoMultiLabel',
        data_root=_root,
        images='all',
        ann_file='annotations/instances_val2014.json',
        data_prefix='val2014',
    ))
test_dataloader = val_dataloader
