"""Model, data and mask of known labels belong together."""
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
        names = model_class_names(model)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if names is None or loop is None or isinstance(loop, dict):
                continue
            classes = loop.dataloader.dataset.metainfo.get('classes')
            if classes is None or tuple(classes) == names:
                continue
            if len(classes) != len(names):
                raise ValueError(
                    f'The data set has {len(classes)} classes and the model '
                    f'{len(names)}: give the model the data set\'s classes.')
            c = next(i for i, n in enumerate(names) if n != classes[i])
            raise ValueError(
                f'Class {c} is "{classes[c]}" in the data set and '
                f'"{names[c]}" in the model: give the model the data set\'s '
                'classes, in its order.')

    def before_train(self, runner) -> None:
        dataset = runner.train_dataloader.dataset
        for module in runner.model.modules():
            if (isinstance(module, MultimodalPrototypes)
                    and module.warmup_images is None):
                module.warmup_images = len(dataset)
        if hasattr(dataset, 'mask'):
            self._keep_mask(runner, dataset)

    @master_only
    def _keep_mask(self, runner, dataset) -> None:
        path = Path(
            runner.work_dir,
            f'known_labels_{dataset.metainfo["known_labels"]["hash"]}.npz')
        mask = dataset.mask
        if not path.exists():
            save_mask(path, mask, dataset.known, dataset.seed)
            print_log(f'The mask of known labels is in {path}.',
                      logger='current')
        elif not np.array_equal(load_mask(path).mask, mask):
            raise ValueError(f'{path} holds another mask than this run\'s: '
                             'take it away, or train in another work dir.')

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            saved = checkpoint['meta'].get('dataset_meta') or {}
            own = getattr(runner.train_dataloader.dataset, 'metainfo', {})
            everything = dict(known='all', seed=None, hash='none')
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
