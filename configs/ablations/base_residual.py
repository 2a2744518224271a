# Base + a learned residual on the text features.
_base_ = 'base.py'

model = dict(backbone=dict(text_residual=0.3))
