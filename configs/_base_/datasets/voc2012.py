# PASCAL VOC 2012: train 5,717, val 5,823 images (labels of test are not
# public).
_base_ = 'clip448.py'

data_root = 'data/VOCdevkit/VOC2012/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.VOCMultiLabel',
            data_root=data_root,
            difficult='negative',
            ann_file='ImageSets/Main/train.txt',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.VOCMultiLabel',
        data_root=data_root,
        difficult='negative',
        ann_file='ImageSets/Main/val.txt',
    ))
test_dataloader = val_dataloader
