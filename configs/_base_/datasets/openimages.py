# Open Images V6, labels of whole images: 9,011,219 / 41,620 / 125,436 images,
# the 9,605 classes with at least 100 positives. Labels that nobody gave are
# unknown in training and in the metrics; no further ones are hidden.
_base_ = 'clip448.py'

_root = 'data/openimages/'

train_dataloader = dict(
    dataset=dict(
        known='all',
        dataset=dict(
            type='trm_ml_mm.OpenImages',
            data_root=_root,
            ann_file='oidv6-train-annotations-human-imagelabels.csv',
            data_prefix='train',
        )),
    # DefaultSampler's order, without a list of nine million numbers.
    sampler=dict(type='trm_ml_mm.LeanSampler', shuffle=True),
)
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.OpenImages',
        data_root=_root,
        ann_file='validation-annotations-human-imagelabels.csv',
        data_prefix='validation',
    ))
test_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.OpenImages',
        data_root=_root,
        ann_file='test-annotations-human-imagelabels.csv',
        data_prefix='test',
    ))
# mAP over known labels as CSL measures it: a class needs a known positive and a
# known negative.
val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP', scored='both'),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
