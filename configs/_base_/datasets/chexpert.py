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
# AUROC is the mean of the five findings that papers report.
val_evaluator = [
    dict(type='trm_ml_mm.MultiLabelAP'),
    dict(
        type='trm_ml_mm.MultiLabelAUROC',
        classes=[
            'Atelectasis', 'Cardiomegaly', 'Consolidation', 'Edema',
            'Pleural Effusion'
        ]),
    dict(type='trm_ml_mm.MultiLabelF1', threshold=0.5, topk=3),
]
test_evaluator = val_evaluator
