# TRM-ML on MS-COCO 2014, CLIP RN101 at 448 px, 10% of the labels known.
# Another proportion, mask or place of the data, one line each:
#   --cfg-options train_dataloader.dataset.known=0.5
#   --cfg-options train_dataloader.dataset.seed=1
#   --cfg-options model.backbone.weights=/path/to/RN101.pt
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/coco2014.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

model = dict(
    backbone=dict(classes='coco'),
    head=dict(num_classes=80),
)
