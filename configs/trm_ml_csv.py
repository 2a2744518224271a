# TRM-ML on your own images with labels in a CSV file. The header names the
# classes. One line each: a test set of its own (else val.csv is it), another
# folder of the tables, of the images, columns that are no classes, more labels
# hidden, to see what fewer labels would have given.
#   --cfg-options test_dataloader.dataset.ann_file=test.csv
#   --cfg-options data_root=/data/own/
#   --cfg-options image_folder=/data/photos/
#   --cfg-options ignore_columns=patient,remark
#   --cfg-options train_dataloader.dataset.known=0.1
_base_ = [
    '_base_/default_runtime.py',
    '_base_/datasets/csv.py',
    '_base_/models/trm_ml_rn101.py',
    '_base_/schedules/adamw_cosine.py',
]

# Labels that people were asked for are no random sample: a model asks where it
# is unsure, and half of the answers may be "present". So the share of positives
# among known labels must not decide how many pseudo-labels are positive.
model = dict(head=dict(prototypes=dict(class_ratio=0.)))
