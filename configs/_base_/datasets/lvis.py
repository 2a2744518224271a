# LVIS v1, 1,203 categories, 100,170 / 19,809 images. Labels that nobody gave
# are unknown in training and in the metrics; no further ones are hidden.
_base_ = 'clip448.py'

_root = 'data/lvis/'

train_dataloader = dict(
    dataset=dict(
        known='all',
        dataset=dict(
            type='trm_ml_mm.LVIS',
            data_root=_root,
            ann_file='annotations/lvis_v1_train.json',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.LVIS',
        data_root=_root,
        ann_file='annotations/lvis_v1_val.json',
    ))
test_dataloader = val_dataloader
