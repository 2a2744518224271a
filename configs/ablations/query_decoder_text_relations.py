# The strongest baseline with TRM-ML's category relations.
_base_ = '../baselines/query_decoder_text.py'

model = dict(head=dict(relations=10.))
