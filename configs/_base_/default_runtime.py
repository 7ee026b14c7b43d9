# Settings that all runs share: registration, hooks, logs, environment.
default_scope = 'mmpretrain'
# A list in a child config replaces this one: keep 'ipirm_mm' in it.
custom_imports = dict(imports=['ipirm_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=2),
    # Saves at SIGTERM and SIGUSR1, and lets a resumed run be the undisturbed one.
    exact_resume=dict(type='ExactResumeHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    # Here and not in custom_hooks, whose list a child config replaces.
    non_finite_guard=dict(type='NonFiniteGuardHook'),  # stops at NaN; action='skip' goes on
    tolerate_reports=dict(type='TolerateReportsHook'),  # a full disk for pictures is a warning
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
