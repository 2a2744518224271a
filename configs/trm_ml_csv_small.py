# TRM-ML on your own images on a small machine, such as a laptop without a GPU:
# CLIP RN50 at 224 px, small batches, as many loader processes as the CPU has
# room for. One line each: larger images, which show smaller things and take
# four times as long; another number of loader processes.
#   --cfg-options image_size=448
#   --cfg-options workers=0
_base_ = 'trm_ml_csv.py'

image_size = 224
workers = 'fit'

# In full: a shorthand would win over the arch of a config that builds on this.
model = dict(backbone=dict(arch='RN50'))

train_dataloader = dict(batch_size=16)
val_dataloader = dict(batch_size=32)
test_dataloader = dict(batch_size=32)
