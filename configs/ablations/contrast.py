# TRM-ML + contrast against visual and text prototypes.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    head=dict(
        contrast=dict(
            _delete_=True,
            type='trm_ml_mm.MultimodalContrastiveLoss',
            modalities=['visual', 'text'],
            loss_weight=0.1)))
