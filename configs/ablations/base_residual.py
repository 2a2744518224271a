# Base + a text feature that may move.
_base_ = 'base.py'

model = dict(backbone=dict(text_residual=0.3))
