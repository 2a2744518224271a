# TRM-ML on the built-in scenes, 10% of the labels known.
# One line each: another proportion, one positive label per image, another mask.
#   --cfg-options train_dataloader.dataset.known=0.5
#   --cfg-options train_dataloader.dataset.known=single_positive
#   --cfg-options train_dataloader.dataset.seed=1
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/scenes.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

# The small CLIP that ships with the package.
model = dict(backbone=dict(arch='mini', classes='scenes'))
