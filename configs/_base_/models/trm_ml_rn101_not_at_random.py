# TRM-ML on CLIP RN101 for labels that are not missing at random. Where a model
# or a report proposes labels, known ones are more often present than unknown
# ones. So no pseudo-label may rest on how common a class is among known ones:
# see docs/not_at_random.md.
_base_ = 'trm_ml_rn101.py'

model = dict(head=dict(prototypes=dict(class_ratio=0.)))
