# TRM-ML without pseudo-labels, with CSL's class-aware selective loss.
# prior: tools/class_prior.py writes it from a model of
# ablations/no_pseudo.py.
_base_ = '../ablations/no_pseudo.py'

model = dict(
    head=dict(
        loss=dict(
            type='trm_ml_mm.SelectiveLoss', mode='selective',
            gamma_unknown=4., prior=None, prior_threshold=0.3, top=3),
        assume_negative=0.))
