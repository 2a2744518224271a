"""Walk through nested configs."""
from copy import deepcopy
from typing import Iterator, Optional, Sequence

SPLITS = ('train', 'val', 'test')


def nested_dicts(config) -> Iterator[dict]:
    """Every dict of a nested config, outermost first."""
    if isinstance(config, dict):
        yield config
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in list(config):
        yield from nested_dicts(value)


def wrapped_datasets(cfg, split: str) -> Iterator[dict]:
    """Configs of a split's data set and of those that it wraps, outermost
    first. A ``ConcatDataset`` ends the chain."""
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    while dataset is not None:
        yield dataset
        dataset = dataset.get('dataset')


def tests_on_validation(cfg) -> bool:
    """Whether the test set of a config is its validation set."""
    val, test = (cfg.get(f'{split}_dataloader') or {}
                 for split in ('val', 'test'))
    return bool(test) and val.get('dataset') == test.get('dataset')


def with_backend(pipeline: Sequence[dict], backend_args: Optional[dict]
                 ) -> list:
    """A copy of a pipeline that loads image files from elsewhere.

    Args:
        pipeline: The configs of its steps.
        backend_args: Of MMEngine's file backend; None: from image files.
    """
    copied = deepcopy(list(pipeline))
    for step in nested_dicts(copied):
        if str(step.get('type')).endswith('LoadImageFromFile'):
            step.pop('backend_args', None)
            if backend_args:
                step['backend_args'] = dict(backend_args)
    return copied


def backend_args_of(pipeline: Sequence[dict]) -> Optional[dict]:
    """The first ``backend_args`` of a pipeline; None: it has none."""
    return next((step['backend_args'] for step in nested_dicts(pipeline)
                 if step.get('backend_args')), None)


def plain_types(value):
    """A config value as JSON types."""
    if isinstance(value, dict):
        return {str(k): plain_types(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_types(v) for v in value]
    return value
