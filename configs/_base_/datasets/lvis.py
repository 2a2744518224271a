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
# mAP over known labels, of all categories and of the frequent, common and rare
# ones; a category needs a known positive and a known negative.
val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP', scored='both'),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
