# Base + pseudo-labels from text prototypes only.
_base_ = 'base_pseudo.py'

model = dict(head=dict(prototypes=dict(modalities=['text'])))
