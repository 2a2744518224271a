# TRM-ML on Open Images V6 with the labels that people gave; the rest is
# unknown. The 600 boxable classes instead of 9,605:
#   --cfg-options train_dataloader.dataset.dataset.classes=FILE
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/openimages.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]
