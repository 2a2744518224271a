# TRM-ML on MS-COCO 2014, CLIP RN101 at 448 px, 10% of the labels known.
# One line each: another proportion, another mask, another folder of the data,
# CLIP from a file.
#   --cfg-options train_dataloader.dataset.known=0.5
#   --cfg-options train_dataloader.dataset.seed=1
#   --cfg-options data_root=/data/coco/
#   --cfg-options model.backbone.weights=/path/to/RN101.pt
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/coco2014.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(backbone=dict(classes='coco'))
