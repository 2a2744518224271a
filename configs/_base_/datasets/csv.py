# Your own images: data/own/images/, labels in train.csv and val.csv (blank =
# unknown). No further labels are hidden.
_base_ = 'clip448.py'

_root = 'data/own/'

train_dataloader = dict(
    dataset=dict(
        known='all',
        dataset=dict(
            type='trm_ml_mm.CSVMultiLabel',
            data_root=_root,
            data_prefix='images',
            ann_file='train.csv',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.CSVMultiLabel',
        data_root=_root,
        data_prefix='images',
        ann_file='val.csv',
    ))
test_dataloader = val_dataloader
