# Base + contrast against text prototypes.
_base_ = 'base_contrast.py'

model = dict(head=dict(contrast=dict(modalities=['text'])))
