# CheXpert, 14 findings, 223,414 / 234 X-rays. What a report calls uncertain or
# does not mention is unknown; no further labels are hidden.
_base_ = 'clip448.py'

_root = 'data/CheXpert-v1.0-small/'

train_dataloader = dict(
    dataset=dict(
        known='all',
        dataset=dict(
            type='trm_ml_mm.CheXpert',
            data_root=_root,
            ann_file='train.csv',
            uncertain='unknown',  # or 'present', 'absent'
            blank='unknown',  # or 'absent'
            view='all',  # or 'frontal'
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.CheXpert',
        data_root=_root,
        ann_file='valid.csv',
    ))
test_dataloader = val_dataloader
