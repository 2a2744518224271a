# The strongest baseline with TRM-ML's category relations. Learning rate and
# scale were tuned for it on validation scenes.
_base_ = '../baselines/query_decoder_text.py'

model = dict(head=dict(relations=30.))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
