# NUS-WIDE, 81 concepts, official split (161,789 / 107,859). For another split,
# give another pair of list files.
_base_ = 'clip448.py'

_root = 'data/nuswide/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.NUSWide',
            data_root=_root,
            images='all',
            ann_file='ImageList/TrainImagelist.txt',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.NUSWide',
        data_root=_root,
        images='all',
        ann_file='ImageList/TestImagelist.txt',
    ))
test_dataloader = val_dataloader
