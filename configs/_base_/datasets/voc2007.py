# PASCAL VOC 2007: trainval 5,011, test 4,952 images.
_base_ = 'clip448.py'

_root = 'data/VOCdevkit/VOC2007/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.VOCMultiLabel',
            data_root=_root,
            difficult='negative',
            ann_file='ImageSets/Main/trainval.txt',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.VOCMultiLabel',
        data_root=_root,
        difficult='negative',
        ann_file='ImageSets/Main/test.txt',
    ))
test_dataloader = val_dataloader
