# Base + relations between categories.
_base_ = 'base.py'

model = dict(head=dict(relations=10.))
