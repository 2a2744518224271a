# The linear probe with CSL's class-aware selective loss.
# prior: tools/class_prior.py writes it from a model of
# baselines/linear_probe.py.
_base_ = '../baselines/linear_probe.py'

model = dict(
    head=dict(
        loss=dict(
            type='trm_ml_mm.SelectiveLoss', mode='selective',
            gamma_unknown=4., prior=None, prior_threshold=0.3, top=3),
        assume_negative=0.))
