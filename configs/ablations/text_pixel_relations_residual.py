# Single locations instead of regions, with our additions to the paper: category
# relations and a learned residual on the text features. Learning rate and
# scales were tuned for it on validation scenes.
_base_ = '../baselines/text_pixel.py'

model = dict(
    backbone=dict(
        prompt=dict(context='a photo of a', class_specific=False),
        text_residual=0.3),
    head=dict(relations=3., logit_scale=7.))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
