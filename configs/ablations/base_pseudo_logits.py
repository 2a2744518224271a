# Base + pseudo-labels from the matching logit alone, no prototypes.
_base_ = 'base.py'

model = dict(
    head=dict(
        pseudo_weight=1.,
        prototypes=dict(
            _delete_=True,
            type='trm_ml_mm.MultimodalPrototypes',
            warmup_images=None,
            gain=0.)))
