# Base, with predictions from the mean of both levels.
_base_ = 'base.py'

model = dict(head=dict(scores='mean'))
