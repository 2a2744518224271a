"""What a checkpoint says about its model: enough to use it without a config.

A description is plain data (JSON types). Nothing in it is executed: a type is
looked up among the registered parts of a model, and is never imported.
"""
import difflib
from typing import List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.configs import nested_dicts, plain_types, wrapped_datasets

# Where it is in a checkpoint's ``meta``.
KEY = 'trm_ml_mm'
VERSION = 1
# Steps of a test pipeline that a description may hold.
RESIZING = ('Resize', 'ResizeEdge', 'CenterCrop')
# The parts of a model come from these modules.
TRUSTED = ('trm_ml_mm.models.', 'mmpretrain.models.backbones.',
           'mmpretrain.models.classifiers.image.', 'mmpretrain.models.heads.',
           'mmpretrain.models.losses.', 'mmpretrain.models.necks.',
           'mmpretrain.models.utils.', 'mmcv.cnn.', 'mmengine.model.',
           'torch.nn.')
# Options that would load files, or ask the internet for them. The learned
# weights come from the checkpoint itself.
LOADERS = ('init_cfg', 'pretrained', 'checkpoint_path')


class ModelDescription(NamedTuple):
    """A model, its classes and how an image gets into it."""

    model: dict  # config of the classifier, with class names and preprocessor
    pipeline: List[dict]  # from a loaded image to the model's input
    classes: Tuple[str, ...]
    words: Tuple[str, ...]  # of each class, in the prompts

    def to_plain(self) -> dict:
        """For a checkpoint: JSON types."""
        return dict(plain_types(self._asdict()), version=VERSION)


def describe(cfg: Config) -> ModelDescription:
    """What a config says about its model.

    Args:
        cfg: With class names filled in; see
            :func:`~trm_ml_mm.engine.fill_classes`.
    """
    model = plain_types(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor',
                         plain_types(cfg.data_preprocessor))
    for options in nested_dicts(model):
        options.pop('feature_grid', None)  # of a cache
    return ModelDescription(model, _steps_after_loading(cfg), (), ())


def describe_run(runner) -> dict:
    """The description that a run stores in its checkpoints.

    Names and words are the model's own: a set's name, such as 'coco', or a
    file of names is not needed to read them again.
    """
    found = getattr(runner, 'description', None) or describe(runner.cfg)
    model = runner.model
    return complete(found, model.module if is_model_wrapper(model) else model,
                    (runner.train_dataloader.dataset.metainfo or {}
                     ).get('classes')).to_plain()


def complete(found: ModelDescription, model: nn.Module,
             names: Optional[Sequence[str]] = None) -> ModelDescription:
    """A description with the class names and words of a built model; without
    a text side, with ``names``."""
    names, words = tuple(names or ()), ()
    for place in (('backbone', ), ('head', 'text')):
        part, options = model, found.model
        for step in place:
            part, options = getattr(part, step, None), (
                (options or {}).get(step))
        text = getattr(part, 'text', part)
        if getattr(text, 'class_names', None) and options:
            names = text.class_names
            words = getattr(text, 'words', names)
            options['classes'] = list(names)
            options['prompt_names'] = dict(zip(names, words))
    return found._replace(classes=tuple(names), words=tuple(words or names))


def read_description(plain, path) -> ModelDescription:
    """Check what a checkpoint says about its model.

    Args:
        plain: ``checkpoint['meta']['trm_ml_mm']``; None: it says nothing.
        path: Of the checkpoint, for error messages.

    Raises:
        ValueError: If it says nothing, was written by a newer version, is
            damaged, or names a part that is not a model's.
    """
    if plain is None:
        raise ValueError(
            f'{path} does not say what its model is (it was written by '
            'version 0.1.0 or earlier, by another project, or without '
            'PlainCheckpointHook): give the config it was trained with.')
    if not isinstance(plain, dict) or type(plain.get('version')) is not int:
        raise ValueError(f'{path} has a damaged description of its model: '
                         'give the config it was trained with.')
    if plain['version'] > VERSION:
        raise ValueError(
            f'{path} was written by a newer version of trm_ml_mm: update it '
            '(pip install -U trm_ml_mm).')
    kinds = dict(model=dict, pipeline=list, classes=list, words=list)
    for name, kind in kinds.items():
        if not isinstance(plain.get(name), kind):
            raise ValueError(
                f'{path} has a damaged description of its model ("{name}" is '
                f'no {kind.__name__}): give the config it was trained with.')
    for name in ('classes', 'words'):
        if not all(isinstance(word, str) for word in plain[name]):
            raise ValueError(f'{path} has a damaged description of its model '
                             f'(its {name} are no words): give the config it '
                             'was trained with.')
    model = plain_types(plain['model'])
    check_parts(model, path)
    for step in plain['pipeline']:
        if not isinstance(step, dict) or step.get('type') not in RESIZING:
            what = step.get('type') if isinstance(step, dict) else step
            raise ValueError(
                f'{path} prepares images with {what!r}, and only '
                f'{", ".join(RESIZING)} are known without its config: give '
                'the config it was trained with.')
    return ModelDescription(model, plain_types(plain['pipeline']),
                            tuple(plain['classes']), tuple(plain['words']))


def check_parts(model: dict, path) -> None:
    """Refuse a model that has parts which are not known to be a model's.

    MMEngine's registries import whatever a type names if they do not know it,
    and some registered types load programs from the internet.

    Raises:
        ValueError: Names the part.
    """
    init_default_scope('mmpretrain')
    for registry in (MODELS, MMPRETRAIN_MODELS, MMENGINE_MODELS):
        registry.import_from_location()
    for options in nested_dicts(model):
        for loader in LOADERS:
            options.pop(loader, None)
        kind = options.get('type')
        if kind is None:
            continue
        found = _registered(kind)
        if found is None or not f'{found.__module__}.'.startswith(TRUSTED):
            raise ValueError(
                f'{path} has the part {kind!r}, which is none of trm_ml_mm or '
                'MMPretrain: if you trust it, give the config it was trained '
                'with.')


def _registered(kind) -> Optional[type]:
    if not isinstance(kind, str):
        return None
    scope, _, name = kind.rpartition('.')
    scopes = {'trm_ml_mm': MODELS, 'mmpretrain': MMPRETRAIN_MODELS,
              'mmengine': MMENGINE_MODELS}
    searched = [scopes[scope]] if scope in scopes else (
        [MMPRETRAIN_MODELS, MMENGINE_MODELS] if not scope else [])
    for registry in searched:
        if name in registry.module_dict:
            return registry.module_dict[name]
    return None


def _steps_after_loading(cfg: Config) -> List[dict]:
    """The test pipeline between loading and packing. Where it has no size,
    the size of the tower. An image of one's own has no box to cut out."""
    pipeline = []
    for split in ('test', 'val'):
        inner = [data for data in wrapped_datasets(cfg, split)
                 if data.get('pipeline')]
        if inner:
            pipeline = plain_types(inner[-1].pipeline)
            break
    steps = [step for step in pipeline if str(step['type']).split('.')[-1]
             not in ('LoadImageFromFile', 'RenderScene', 'CropBox',
                     'PackInputs')]
    for step in steps:
        step['type'] = str(step['type']).split('.')[-1]
    side = (cfg.model.get('backbone') or {}).get('image_size')
    if side and not any(step['type'] in RESIZING for step in steps):
        steps.insert(0, dict(type='Resize', scale=[side, side],
                             interpolation='bicubic'))
    return steps


def find_class(classes: Sequence[str], name: str) -> int:
    """Index of a class.

    Raises:
        ValueError: If there is none of this name; names the nearest.
    """
    if name in classes:
        return list(classes).index(name)
    near = difflib.get_close_matches(name, classes, 1)
    hint = f' (did you mean "{near[0]}"?)' if near else ''
    raise ValueError(f'The model has no class "{name}"{hint}: it knows '
                     f'{len(classes)} classes, {", ".join(classes[:5])}'
                     f'{", ..." if len(classes) > 5 else ""}.')
