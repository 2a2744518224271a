# Base + pseudo-labels from visual prototypes only.
_base_ = 'base.py'

model = dict(
    head=dict(
        pseudo_weight=2.,
        prototypes=dict(
            _delete_=True,
            type='trm_ml_mm.MultimodalPrototypes',
            warmup_images=None,
            modalities=['visual'])))
