default_scope = 'mmpretrain'
runner_type = 'trm_ml_mm.SafeRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='trm_ml_mm.AtomicCheckpointHook',
        interval=1,
        max_keep_ckpts=1,
        save_best='multi-label/mAP',
        rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='trm_ml_mm.PlainCheckpointHook'),
    dict(type='trm_ml_mm.EpochSeedHook'),
    dict(type='trm_ml_mm.PartialLabelHook'),
    dict(type='trm_ml_mm.SkippedImagesHook'),
    dict(type='trm_ml_mm.ReportHook', zero_shot=True),
    dict(type='trm_ml_mm.PseudoLabelQualityHook'),
    dict(type='trm_ml_mm.FiniteLossHook'),
    dict(type='trm_ml_mm.StopSignalHook'),
    dict(type='trm_ml_mm.TrainingTimeHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0, deterministic=False)
log_level = 'INFO'
load_from = None
resume = False
work_dir = 'work_dirs'  # tools/train.py adds the name of the config
