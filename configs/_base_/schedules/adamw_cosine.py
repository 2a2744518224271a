# Only what is learned reaches the optimiser: the frozen towers are not among
# the model's parameters.
epochs = 10
lr = 1e-3

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.02),
    clip_grad=dict(max_norm=5.0))
# Both keep the ratios between parameter groups (lr_mult).
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.04,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=epochs - 2,
        eta_min=0.,
        by_epoch=True,
        begin=2,
        end=epochs,
        convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
