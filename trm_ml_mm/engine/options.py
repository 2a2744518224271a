"""Refuse options that change nothing.

``--cfg-options trian_dataloader.batch_size=2`` would only add an entry that
nothing reads. Every option must name an entry that something uses: an entry of
the config, or a parameter of the component it belongs to.
"""
import difflib
import inspect
from numbers import Integral, Real
from typing import Iterator, List, Optional, Sequence, Set

import mmpretrain.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from trm_ml_mm.models import CategoryRegions, PromptedTextEncoder, PromptLearner
from trm_ml_mm.utils.configs import SPLITS

from .shorthands import SHORTHANDS


def parameters(*components) -> Set[str]:
    """Names that these functions or classes take, without ``self``."""
    return {name for component in components
            for name in inspect.signature(component).parameters} - {'self'}


# Top level: what the Runner, or this package's launcher, reads.
TOP_LEVEL = parameters(Runner.__init__) - {'cfg', 'launcher'} | {
    'activation_checkpointing', 'compile', 'default_scope',
    'efficient_conv_bn_eval', 'feature_cache', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'sync_bn'} | set(SHORTHANDS)
# Dicts without a type of their own, by the last name of their path.
UNTYPED = {
    'train_cfg': parameters(EpochBasedTrainLoop, IterBasedTrainLoop)
    - {'runner', 'dataloader'} | {'by_epoch', 'type'},
    'val_cfg': {'fp16', 'type'},
    'test_cfg': {'fp16', 'type'},
    'randomness': {'seed', 'deterministic', 'diff_rank_seed'},
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'region': parameters(CategoryRegions) - {'num_classes', 'dim'} | {'type'},
    'prompt': parameters(PromptLearner) - {'clip', 'names'},
    'text': parameters(PromptedTextEncoder) - {'clip'} | {'type'},
    **{f'{split}_dataloader': parameters(DataLoader)
       | {'num_batch_per_epoch'} for split in SPLITS},
}
# What builders take out of a typed dict before they build it.
BUILDER_KEYS = {
    'optim_wrapper': {'constructor', 'dtype', 'loss_scale', 'paramwise_cfg',
                      'use_fsdp', 'optimizer'},
    'param_scheduler': {'convert_to_iter_based'},
}


def check_options(cfg: Config, options: dict) -> None:
    """Refuse the first option that changes nothing.

    Args:
        cfg: The config before the options are applied.
        options: Dotted keys and values, as ``--cfg-options`` gives them.

    Raises:
        ValueError: Names the option and the nearest name that is used.
    """
    entries = cfg.to_dict()
    for option, value in options.items():  # a new type has other parameters
        if option.endswith('.type'):
            _set_type(entries, option.split('.')[:-1], value)
    for option in options:
        _check_option(entries, option)


def check_values(cfg: Config) -> None:
    """Refuse values of a whole config that make no sense.

    Raises:
        ValueError: Names the first of them.
    """
    entries = [('train_cfg.max_epochs', Integral),
               ('train_cfg.max_iters', Integral),
               ('optim_wrapper.optimizer.lr', Real)]
    entries += [(f'{split}_dataloader.batch_size', Integral)
                for split in SPLITS]
    for path, kind in entries:
        value = cfg.to_dict()
        for name in path.split('.'):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and (
                not isinstance(value, kind) or isinstance(value, bool)
                or not 0 < value < float('inf')):
            what = 'integer' if kind is Integral else 'number'
            raise ValueError(f'{path} must be a positive {what}, got '
                             f'{value!r}.')


def _set_type(node, path: List[str], value) -> None:
    for name in path:
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node['type'] = value


def _check_option(cfg: dict, option: str) -> None:
    node, path = cfg, []
    for name in option.split('.'):
        if isinstance(node, (list, tuple)):
            if not name.isdigit() or int(name) >= len(node):
                raise ValueError(
                    f'{option} changes nothing: {".".join(path)} is a list of '
                    f'{len(node)}, so {name} must be 0 to {len(node) - 1}.')
            node = node[int(name)]
        elif isinstance(node, dict):
            if path or name in TOP_LEVEL:
                _check_name(option, name, node, path)
            elif name in node:
                _refuse_variable(cfg, option, name)
            else:
                _refuse(option, name, 'the config', TOP_LEVEL, cfg)
            node = node.get(name)
        else:
            return  # a new entry of a component that is switched off
        path.append(name)


def _check_name(option: str, name: str, node: dict, path: List[str]) -> None:
    """Refuse a name that a dict neither has nor could use."""
    if not path or name in node or name == '_delete_':
        return
    allowed = _allowed_names(node, path)
    if allowed is None:  # free-form: refuse only what looks like a slip
        if _nearest(name, set(node)):
            _refuse(option, name, '.'.join(path), set(node))
    elif name not in allowed:
        owner = str(node.get('type', '.'.join(path))).split('.')[-1]
        _refuse(option, name, owner, allowed | set(node))


def _allowed_names(node: dict, path: Sequence[str]) -> Optional[Set[str]]:
    """Names that a dict of the config could have; None: any."""
    names = [p for p in path if not p.isdigit()]
    if 'type' in node:
        allowed = _parameters_of_type(node['type'])
        if allowed is None:
            return None
        return allowed | BUILDER_KEYS.get(names[-1], set()) | {'type'}
    return UNTYPED.get(names[-1])


def _parameters_of_type(type_name) -> Optional[Set[str]]:
    """Parameters of a registered component, those of its base classes
    included if it passes them on; None: it takes any, or is not known."""
    component = _find_component(type_name)
    if component is None:
        return None
    if not inspect.isclass(component):
        return parameters(component)
    found = set()
    for cls in component.__mro__:
        if '__init__' not in vars(cls):
            continue
        signature = inspect.signature(cls.__init__).parameters.values()
        found |= {p.name for p in signature
                  if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {'self'}
        if not any(p.kind == p.VAR_KEYWORD for p in signature):
            return found
    return None


def _find_component(type_name):
    if not isinstance(type_name, str):
        return type_name
    for registry in vars(mmpretrain.registry).values():
        if isinstance(registry, Registry):
            component = registry.get(type_name)
            if component is not None:
                return component
    return None


def _refuse(option: str, name: str, owner: str, known: Set[str],
            cfg: Optional[dict] = None) -> None:
    """Say that ``owner`` has no such name, and what comes nearest: a similar
    name, or an entry of the whole config with this name."""
    near = _nearest(name, known)
    inside = [path for path, _ in _entries(cfg or {})
              if path[-1] == name and path[0] in TOP_LEVEL]
    if near:
        hint = f'did you mean {option.replace(name, near, 1)}?'
    elif inside:
        hint = f'did you mean {".".join(min(inside, key=len))}?'
    else:
        names = sorted(known & set(cfg) | set(SHORTHANDS) if cfg else known)
        hint = f'{owner} has {", ".join(names)}.'
    raise ValueError(f'{option} changes nothing: {owner} has no {name}; '
                     f'{hint}')


def _refuse_variable(cfg: dict, option: str, name: str) -> None:
    """A variable at the top level of a config file, such as a pipeline."""
    used = [path for path, value in _entries(cfg)
            if value == cfg[name] and path[0] in TOP_LEVEL]
    where = '.'.join(used[0]) if used else None
    hint = f'set {where}' if where else 'set the entry that it was used for'
    raise ValueError(
        f'{option} changes nothing: {name} is a variable of the config file, '
        f'and its value has already been used; {hint}.')


def _entries(node, path=()) -> Iterator:
    """Every (path, value) of a nested config."""
    items = node.items() if isinstance(node, dict) else (
        ((str(i), v) for i, v in enumerate(node))
        if isinstance(node, (list, tuple)) else ())
    for name, value in items:
        yield (*path, name), value
        yield from _entries(value, (*path, name))


def _nearest(name: str, known: Set[str]) -> Optional[str]:
    found = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    return found[0] if found else None
