# TRM-ML on Open Images V6 with the labels that people gave; the rest is
# unknown. The 600 boxable classes instead of 9,605:
#   --cfg-options train_dataloader.dataset.dataset.classes=FILE
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/openimages.py',
    '_base_/models/trm_ml_rn101_not_at_random.py',
    '_base_/schedules/adamw_cosine.py',
]

# 9,605 classes: a step works on those with a known label in the batch and on
# others, 1,024 in all; relations have a low rank (docs/scale.md). With 600
# classes, model.head.sampled_classes=None and model.head.relation_rank=None do
# as the other configs.
model = dict(head=dict(sampled_classes=1024, relation_rank=16))
