# Base + pseudo-labels from the matching logit alone: prototypes have no say.
_base_ = 'base_pseudo.py'

model = dict(head=dict(prototypes=dict(gain=0.)))
