# Base + category relations.
_base_ = 'base.py'

model = dict(head=dict(relations=20.))
