"""Model, data and mask of known labels belong together."""
import logging
from pathlib import Path

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from trm_ml_mm.datasets.masks import load_mask, save_mask
from trm_ml_mm.models.prototypes import MultimodalPrototypes
from trm_ml_mm.registry import HOOKS


@HOOKS.register_module()
class PartialLabelHook(Hook):
    """Tie a run to its data and its mask of known labels.

    * A run does not start with a data set of other classes than the model's,
      nor with blended labels (Mixup, CutMix).
    * The mask is written to the work dir, ``known_labels_<hash>.npz``.
    * A run does not resume on another mask.
    * Prototypes whose warm-up is left open warm up over one pass of the
      training set.

    Raises:
        ValueError: In those cases; or if the mask file is damaged.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        if getattr(model.data_preprocessor, 'batch_augments', None):
            raise ValueError(
                'Batch augmentations such as Mixup and CutMix blend labels, '
                'and a blend with an unknown label means nothing: take '
                'train_cfg.augments out of the model.')
        names = reference_names(runner)
        for part in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{part}_loop')
            if loop is not None and not isinstance(loop, dict):
                check_classes(loop.dataloader.dataset, names, part)

    def before_train(self, runner) -> None:
        dataset = runner.train_dataloader.dataset
        for module in runner.model.modules():
            if (isinstance(module, MultimodalPrototypes)
                    and module.warmup_images is None):
                module.warmup_images = len(dataset)
        partial = find_mask(dataset)
        if partial is not None:
            self._keep_mask(runner, partial)

    @master_only
    def _keep_mask(self, runner, dataset) -> None:
        path = Path(
            runner.work_dir,
            f'known_labels_{dataset.metainfo["known_labels"]["hash"]}.npz')
        mask, old = dataset.mask, None
        if path.exists():
            try:
                old = load_mask(path).mask
            except ValueError as error:
                print_log(f'{error} It is written anew.', logger='current',
                          level=logging.WARNING)
        if old is None:
            save_mask(path, mask, dataset.known, dataset.seed)
            print_log(f'The mask of known labels is in {path}.',
                      logger='current')
        elif not np.array_equal(old, mask):
            raise ValueError(f'{path} holds another mask than this run\'s: '
                             'take it away, or train in another work dir.')

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            saved = checkpoint['meta'].get('dataset_meta') or {}
            own = getattr(runner.train_dataloader.dataset, 'metainfo', {})
            everything = dict(known='all', seed=None, hash='none', labels='')
            saved = saved.get('known_labels') or everything
            own = own.get('known_labels') or everything
            if saved['hash'] != own['hash']:
                raise ValueError(
                    'The checkpoint was trained on another mask of known '
                    f'labels (known={saved["known"]}, seed={saved["seed"]}, '
                    f'hash {saved["hash"]}) than this run (known='
                    f'{own["known"]}, seed={own["seed"]}, hash {own["hash"]}):'
                    ' resume with its setting, or train anew in another work '
                    'dir.')
            if saved['labels'] != own['labels']:
                raise ValueError(
                    'The checkpoint was trained on other labels: the label '
                    'file, its order, or what difficult objects count as, '
                    'changed since; resume with the old one, or train anew in '
                    'another work dir.')


def find_mask(dataset):
    """The PartialLabelDataset among a data set and what it wraps, or None."""
    while dataset is not None and not hasattr(dataset, 'mask'):
        dataset = getattr(dataset, 'dataset', None)
    return dataset


def reference_names(runner):
    """Class names that all data sets of a run must have: the model's, or
    those of the training set, or None."""
    model = runner.model
    names = model_class_names(
        model.module if is_model_wrapper(model) else model)
    loop = runner._train_loop
    if names is None and loop is not None and not isinstance(loop, dict):
        names = loop.dataloader.dataset.metainfo.get('classes')
    return None if names is None else tuple(names)


def check_classes(dataset, names, part: str) -> None:
    """Refuse a data set with other classes than ``names``, or another order.

    Raises:
        ValueError: Naming the first that differs.
    """
    classes = dataset.metainfo.get('classes')
    if names is None or classes is None or tuple(classes) == names:
        return
    if len(classes) != len(names):
        raise ValueError(
            f'The {part} set has {len(classes)} classes and the model '
            f'{len(names)}: make them agree.')
    c = next(i for i, n in enumerate(names) if n != classes[i])
    raise ValueError(
        f'Class {c} is "{classes[c]}" in the {part} set and "{names[c]}" in '
        'the model: make them agree, in their order too.')


def model_class_names(model):
    """Class names of a classifier's text side, or None where it has none."""
    for part in ('backbone', 'head'):
        part = getattr(model, part, None)
        names = getattr(part, 'class_names', None)
        if names is None:
            names = getattr(getattr(part, 'text', None), 'class_names', None)
        if names is not None:
            return tuple(names)
    return None
