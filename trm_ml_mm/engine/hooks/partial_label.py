"""Check that model, data and mask of known labels belong together."""
import logging
from pathlib import Path
from typing import Union

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmpretrain.models import HuggingFaceClassifier, TimmClassifier

from trm_ml_mm.datasets import (
    find_masks,
    has_three_values,
    known_labels_of,
    training_matrix,
)
from trm_ml_mm.labels import LabelSummary, load_mask, save_mask
from trm_ml_mm.models.label_statistics import LabelCounts, LabelStatistics
from trm_ml_mm.models.prototypes import MultimodalPrototypes
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.configs import SPLITS
from trm_ml_mm.utils.mmengine_private import built_loop, is_resuming


@HOOKS.register_module()
class PartialLabelHook(Hook):
    """Tie a run to its data and its mask of known labels.

    * A run does not start if a data set has other classes than the model, if
      labels would be blended (Mixup, CutMix), if a loss of MMPretrain would
      take unknown labels as numbers, if the classifier predicts one class per
      image, or if FSDP or DeepSpeed would shard the model.
    * Every mask is saved in the work dir as ``known_labels_<hash>.npz``, and
      its hash in every checkpoint, as ``known_labels`` of its ``meta``.
    * A run does not resume on another mask.
    * The model learns how large the training set is and how common its labels
      are, before training.

    Raises:
        ValueError: In those cases.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        model = runner.model
        check_wrapper(type(model))
        if is_model_wrapper(model):
            model = model.module
        check_classifier(model)
        if getattr(model.data_preprocessor, 'batch_augments', None):
            raise ValueError(
                'Batch augmentations such as Mixup and CutMix blend labels, '
                'and a blend with an unknown label means nothing: remove '
                'train_cfg.augments from the model.')
        names = reference_names(runner)
        for split in SPLITS:
            loop = built_loop(runner, split)
            if loop is not None:
                check_classes(loop.dataloader.dataset, names, split)
        loop = built_loop(runner, 'train')
        if loop is not None:  # before an EMA hook copies the model
            for module in model.modules():
                if isinstance(module, MultimodalPrototypes):
                    module.prepare(len(loop.dataloader.dataset),
                                   loop.dataloader.batch_size)

    def before_train(self, runner) -> None:
        dataset = runner.train_dataloader.dataset
        masks = find_masks(dataset)
        if masks or has_three_values(dataset):
            labels = training_matrix(dataset).summary()
            check_losses(runner.model, labels)
        if not masks:
            return
        # After load_from: the counts of another training set do not stay.
        for module in runner.model.modules():
            if isinstance(module, LabelStatistics):
                module.set_training_labels(LabelCounts(
                    *map(torch.from_numpy, (labels.negative, labels.positive)),
                    torch.tensor(labels.images)))
        for mask in masks:
            self._keep_mask(runner, mask)

    @master_only
    def _keep_mask(self, runner, dataset) -> None:
        path = Path(
            runner.work_dir,
            f'known_labels_{dataset.known_labels["hash"]}.npz')
        mask, old = dataset.mask, None
        if path.exists():
            try:
                old = load_mask(path).mask
            except ValueError as error:
                print_log(f'{error} It is written again.', logger='current',
                          level=logging.WARNING)
        if old is None:
            save_mask(path, mask, dataset.known, dataset.seed)
            print_log(f'The mask of known labels is saved in {path}.',
                      logger='current')
        elif not np.array_equal(old, mask):
            raise ValueError(f'{path} holds another mask than this run\'s: '
                             'remove it, or train in another work dir.')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['known_labels'] = known_labels_of(
            runner.train_dataloader.dataset)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            all_known = dict(known='all', seed=None, hash='none', labels='')
            saved = checkpoint['meta'].get('known_labels') or all_known
            own = known_labels_of(runner.train_dataloader.dataset) or all_known
            if saved['hash'] != own['hash']:
                raise ValueError(
                    'The checkpoint was trained on another mask of known '
                    f'labels (known={saved["known"]}, seed={saved["seed"]}, '
                    f'hash {saved["hash"]}) than this run (known='
                    f'{own["known"]}, seed={own["seed"]}, hash {own["hash"]}):'
                    ' resume with the same settings, or start a new training '
                    'in another work dir.')
            if saved['labels'] != own['labels']:
                raise ValueError(
                    'The checkpoint was trained on other labels: the label '
                    'file, its order, or the rule for difficult objects '
                    'changed since then. Restore it, or start a new training '
                    'in another work dir.')


def check_wrapper(kind: Union[str, type]) -> None:
    """Refuse wrappers that shard the model.

    Raises:
        ValueError: Says what to do instead.
    """
    name = str(getattr(kind, '__name__', kind)).split('.')[-1]
    if 'FullySharded' in name or 'DeepSpeed' in name:
        raise ValueError(
            f'{name} shards parameters, and the frozen tower has none: it '
            'would stay where it is, on every rank. What is learned is small, '
            'so start with tools/dist_train.sh, without model_wrapper_cfg '
            '(MMDistributedDataParallel).')


def check_classifier(model) -> None:
    """Refuse classifiers whose scores of an image sum to 1.

    Raises:
        ValueError: Names the one to take.
    """
    if isinstance(model, (TimmClassifier, HuggingFaceClassifier)):
        raise ValueError(
            f'{type(model).__name__} predicts one class per image (softmax), '
            'and its scores of a class do not compare between images: take '
            'an ImageClassifier with a backbone, such as TIMMBackbone, and a '
            'multi-label head.')


def check_losses(model, labels: LabelSummary) -> None:
    """Refuse losses that do not know unknown labels.

    Raises:
        ValueError: Names the loss to take.
    """
    for module in model.modules():
        kind = type(module)
        if kind.__module__.startswith('mmpretrain.models.losses') and (
                labels.unknown.any()):
            raise ValueError(
                f'{kind.__name__} takes unknown labels (-1) as numbers: set '
                "the loss of the head to dict(type='trm_ml_mm."
                "PartialAsymmetricLoss').")


def reference_names(runner):
    """Class names that all data sets of a run must have: those of the model,
    else of the training set, else None."""
    model = runner.model
    names = model_class_names(
        model.module if is_model_wrapper(model) else model)
    loop = built_loop(runner, 'train')
    if names is None and loop is not None:
        names = (loop.dataloader.dataset.metainfo or {}).get('classes')
    return None if names is None else tuple(names)


def check_classes(dataset, names, split: str) -> None:
    """Refuse a data set with other classes than ``names``, or another order.

    Raises:
        ValueError: Names the first class that differs.
    """
    classes = (dataset.metainfo or {}).get('classes')
    if names is None or classes is None or tuple(classes) == names:
        return
    if len(classes) != len(names):
        raise ValueError(
            f'The {split} set has {len(classes)} classes and the model '
            f'{len(names)}: make them agree.')
    c = next(i for i, n in enumerate(names) if n != classes[i])
    raise ValueError(
        f'Class {c} is "{classes[c]}" in the {split} set and "{names[c]}" in '
        'the model: make names and order agree.')


def model_class_names(model):
    """Class names of a classifier's text side; None if it has none."""
    for part in ('backbone', 'head'):
        part = getattr(model, part, None)
        names = getattr(part, 'class_names', None)
        if names is None:
            names = getattr(getattr(part, 'text', None), 'class_names', None)
        if names is not None:
            return tuple(names)
    return None
