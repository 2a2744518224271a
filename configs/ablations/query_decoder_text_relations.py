# The strongest rival, with the relations between categories of TRM-ML. Rate and
# gain are those its own search found best.
_base_ = '../baselines/query_decoder_text.py'

model = dict(head=dict(relations=30.))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
