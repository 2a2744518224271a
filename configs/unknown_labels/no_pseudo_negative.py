# TRM-ML without pseudo-labels; unknown labels count as absent.
_base_ = '../ablations/no_pseudo.py'

model = dict(
    head=dict(
        loss=dict(
            type='trm_ml_mm.SelectiveLoss', mode='negative', gamma_unknown=2.),
        assume_negative=0.))
