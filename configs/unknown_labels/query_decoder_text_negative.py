# The text-started decoder; unknown labels count as absent.
_base_ = '../baselines/query_decoder_text.py'

model = dict(
    head=dict(
        loss=dict(
            type='trm_ml_mm.SelectiveLoss', mode='negative', gamma_unknown=2.),
        assume_negative=0.))
