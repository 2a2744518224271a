# MS-COCO 2017: 118,287 training and 5,000 validation images.
_base_ = 'coco2014.py'

_train = dict(
    ann_file='annotations/instances_train2017.json', data_prefix='train2017')
_val = dict(
    ann_file='annotations/instances_val2017.json', data_prefix='val2017')
train_dataloader = dict(dataset=dict(dataset=_train))
val_dataloader = dict(dataset=_val)
test_dataloader = dict(dataset=_val)
