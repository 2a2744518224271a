# PASCAL VOC 2012: train 5,717, val 5,823 images (labels of test are not
# public).
_base_ = 'voc2007.py'

_root = 'data/VOCdevkit/VOC2012/'

_train = dict(data_root=_root, ann_file='ImageSets/Main/train.txt')
_val = dict(data_root=_root, ann_file='ImageSets/Main/val.txt')
train_dataloader = dict(dataset=dict(dataset=_train))
val_dataloader = dict(dataset=_val)
test_dataloader = dict(dataset=_val)
