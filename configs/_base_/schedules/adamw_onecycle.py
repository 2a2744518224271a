# Only what is learned reaches the optimiser: the frozen towers are not among
# the model's parameters.
epochs = 10
lr = 1e-3

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.02),
    clip_grad=dict(max_norm=5.0))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=lr,
    total_steps=epochs,
    pct_start=0.2,
    by_epoch=True,
    begin=0,
    end=epochs,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
