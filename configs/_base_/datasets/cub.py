# CUB-200-2011, 312 attributes, 5,994 / 5,794 images.
_base_ = 'clip448.py'

_root = 'data/CUB_200_2011/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.CUBAttributes',
            data_root=_root,
            split='train',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.CUBAttributes',
        data_root=_root,
        split='test',
    ))
test_dataloader = val_dataloader
