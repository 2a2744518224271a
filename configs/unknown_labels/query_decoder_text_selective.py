# The text-started decoder with CSL's class-aware selective loss.
# prior: tools/class_prior.py writes it from a model of
# baselines/query_decoder_text.py.
_base_ = '../baselines/query_decoder_text.py'

model = dict(
    head=dict(
        loss=dict(
            type='trm_ml_mm.SelectiveLoss', mode='selective',
            gamma_unknown=4., prior=None, prior_threshold=0.3, top=3),
        assume_negative=0.))
