# Your own images: data/own/images/, labels in train.csv and val.csv (blank =
# unknown). No further labels are hidden. Columns may stand in any order.
# val.csv is the test set too, so the best epoch is picked on the test set, and
# its figures are optimistic. With a third table, one line tests on it:
#   --cfg-options test_dataloader.dataset.ann_file=test.csv
# tools/split_table.py makes all three from one table.
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
test_dataloader = val_dataloader  # see above
