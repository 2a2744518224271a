"""Test with several views of every image."""
from copy import deepcopy
from typing import List, Sequence

from mmengine.config import Config

from trm_ml_mm.utils.configs import nested_dicts


def use_tta(cfg: Config, scales: Sequence[float] = ()) -> None:
    """Change a config in place, so that a test averages over views.

    A config's own ``tta_model`` and ``tta_pipeline`` are used, as MMPretrain
    does. Without them, every image is seen as it is and flipped, at each of
    these scales.

    Args:
        cfg: The run's config.
        scales: Of the test size; none: the test size alone.

    Raises:
        ValueError: If the test set has no images, a scale is not positive,
            or scales meet a ``tta_pipeline``.
    """
    if cfg.get('feature_cache'):
        raise ValueError('--tta needs images, and feature_cache has features: '
                         'test without it.')
    if any(scale <= 0 for scale in scales):
        raise ValueError(f'--tta takes positive scales, got {list(scales)}.')
    if scales and cfg.get('tta_pipeline'):
        raise ValueError('The config has a tta_pipeline of its own: give --tta '
                         'without scales.')
    cfg.setdefault('tta_model', dict(type='trm_ml_mm.MultiLabelTTA'))
    found = [options for options in nested_dicts(
        (cfg.get('test_dataloader') or {}).get('dataset'))
             if options.get('pipeline')]
    if not found:
        raise ValueError('--tta needs a test set with a pipeline.')
    for options in found:
        options['pipeline'] = cfg.get('tta_pipeline') or views_of(
            options['pipeline'], scales or (1., ))
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(
        type='mmengine.PrepareTTAHook', tta_cfg=cfg.tta_model)]


def views_of(pipeline: List[dict], scales: Sequence[float]) -> List[dict]:
    """A test pipeline whose last step makes several views.

    A ``Resize`` of the pipeline takes each scale of its size; in a pipeline
    without one, the image is resized before it is packed.
    """
    before, sizes, after, pack = _around_resize(pipeline, scales)
    return [*before, dict(type='TestTimeAug', transforms=[
        sizes, *([step] for step in after), list(_FLIPS), [pack]])]


def view_pipelines(pipeline: List[dict], scales: Sequence[float]
                   ) -> List[List[dict]]:
    """A pipeline for each of the views that :func:`views_of` makes together:
    at each scale, the image as it is and mirrored."""
    before, sizes, after, pack = _around_resize(pipeline, scales)
    return [[*before, size, *after, *([flip] if flip['prob'] else ()), pack]
            for size in sizes for flip in _FLIPS]


_FLIPS = tuple(dict(type='RandomFlip', prob=prob, direction='horizontal')
               for prob in (0., 1.))


def _around_resize(pipeline: List[dict], scales: Sequence[float]):
    """The steps before resizing, resizing at each scale, the steps after it,
    and packing."""
    *steps, pack = map(dict, deepcopy(list(pipeline)))
    at = next((i for i, step in enumerate(steps)
               if step['type'].split('.')[-1] == 'Resize'
               and step.get('scale')), len(steps))
    if at < len(steps):
        sizes = [dict(steps[at], scale=scaled(steps[at]['scale'], scale))
                 for scale in scales]
    else:
        sizes = [dict(type='Resize', scale_factor=scale) for scale in scales]
    return steps[:at], sizes, steps[at + 1:], pack


def scaled(size, factor: float):
    """An image size, or a pair of them, in whole pixels."""
    if isinstance(size, (tuple, list)):
        return tuple(round(side * factor) for side in size)
    return round(size * factor)
