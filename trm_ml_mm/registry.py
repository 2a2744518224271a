"""The registry scope ``trm_ml_mm``.

A config keeps ``default_scope = 'mmpretrain'`` and writes
``type='trm_ml_mm.TextRegionMatchingHead'``. MMEngine then imports this module,
and the ``locations`` below on first use: no ``custom_imports`` is needed.

This module imports only mmengine. MMEngine hides import errors of a
``registry`` module, so that a mistake would show as "not in the registry".
"""
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

_SCOPE = 'trm_ml_mm'

MODELS = Registry(
    'model',
    scope=_SCOPE,
    parent=MMENGINE_MODELS,
    locations=['trm_ml_mm.models'])
DATASETS = Registry(
    'dataset',
    scope=_SCOPE,
    parent=MMENGINE_DATASETS,
    locations=['trm_ml_mm.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler',
    scope=_SCOPE,
    parent=MMENGINE_DATA_SAMPLERS,
    locations=['trm_ml_mm.datasets'])
TRANSFORMS = Registry(
    'transform',
    scope=_SCOPE,
    parent=MMENGINE_TRANSFORMS,
    locations=['trm_ml_mm.datasets', 'trm_ml_mm.features'])
METRICS = Registry(
    'metric',
    scope=_SCOPE,
    parent=MMENGINE_METRICS,
    locations=['trm_ml_mm.evaluation'])
HOOKS = Registry(
    'hook',
    scope=_SCOPE,
    parent=MMENGINE_HOOKS,
    locations=['trm_ml_mm.engine'])
PARAM_SCHEDULERS = Registry(
    'parameter scheduler',
    scope=_SCOPE,
    parent=MMENGINE_PARAM_SCHEDULERS,
    locations=['trm_ml_mm.engine'])
FUNCTIONS = Registry(
    'function',
    scope=_SCOPE,
    parent=MMENGINE_FUNCTIONS,
    locations=['trm_ml_mm.engine'])
RUNNERS = Registry(
    'runner',
    scope=_SCOPE,
    parent=MMENGINE_RUNNERS,
    locations=['trm_ml_mm.engine'])
LOOPS = Registry(
    'loop',
    scope=_SCOPE,
    parent=MMENGINE_LOOPS,
    locations=['trm_ml_mm.engine'])
