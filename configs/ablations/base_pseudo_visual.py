# Base + pseudo-labels from visual prototypes only.
_base_ = 'base_pseudo.py'

model = dict(head=dict(prototypes=dict(modalities=['visual'])))
