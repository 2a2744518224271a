# Base + distillation from region to query level.
_base_ = 'base.py'

model = dict(
    head=dict(
        distillation=dict(
            _delete_=True,
            type='trm_ml_mm.RegionDistillationLoss', loss_weight=2.)))
