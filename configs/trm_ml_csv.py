# TRM-ML on your own images with labels in a CSV file. The header names the
# classes. --cfg-options train_dataloader.dataset.known=0.1 hides more labels,
# to see what fewer labels would have given.
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/csv.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]
