# Base + pseudo-labels from visual and text prototypes.
_base_ = 'base.py'

model = dict(head=dict(pseudo_weight=4.))
