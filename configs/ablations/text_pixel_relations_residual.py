# Single places in the place of regions, with the parts that are ours, not the
# paper's: relations between categories and a text feature that may move. Rate,
# scale and gain are those its own search found best.
_base_ = '../baselines/text_pixel.py'

model = dict(
    backbone=dict(
        prompt=dict(context='a photo of a', per_class=False),
        text_residual=0.3),
    head=dict(relations=3., logit_scale=10.))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
