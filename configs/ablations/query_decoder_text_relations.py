# The strongest rival, with the relations between categories of TRM-ML.
_base_ = '../baselines/query_decoder_text.py'

model = dict(head=dict(relations=10.))
