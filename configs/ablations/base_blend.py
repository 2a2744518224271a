# Base, predicted from the blend of both levels.
_base_ = 'base.py'

model = dict(head=dict(scores='blend'))
