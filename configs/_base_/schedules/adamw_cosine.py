# Ten epochs of AdamW, two of them warm-up. Another length or rate:
# epochs = 20 or lr = 1e-3 at the top level of a config. The schedule follows
# the epochs, and the rate falls in a longer training.
# The frozen towers are not among the model's parameters, so the optimiser never
# sees them.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.02),
    clip_grad=dict(max_norm=5.0))
# Both schedulers keep the ratios between parameter groups (lr_mult).
param_scheduler = [
    dict(
        type='trm_ml_mm.WarmupLR',  # LinearLR, at least two iterations
        start_factor=0.04,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=8,
        eta_min=0.,
        by_epoch=True,
        begin=2,
        end=10,
        convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()
