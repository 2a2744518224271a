# Base + pseudo-labels from the matching logit alone, without prototypes.
_base_ = 'base_pseudo.py'

model = dict(head=dict(prototypes=dict(scale=0.)))
