"""Pseudo-labels judged by the labels that were hidden."""
import csv
from pathlib import Path
from typing import Dict

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor

from trm_ml_mm.datasets.base import label_matrix
from trm_ml_mm.datasets.files import replacing
from trm_ml_mm.registry import HOOKS

from .partial_label import find_mask

TABLE = 'pseudo_labels.csv'


def pseudo_label_counts(pseudo: Tensor, hidden: Tensor) -> Tensor:
    """Six counts that precision and recall are made of.

    Args:
        pseudo: ``(B, C)`` in {1, 0, -1}.
        hidden: ``(B, C)`` the truth of hidden labels in {1, 0}; -1 where a
            label was known, or nobody knows it.

    Returns:
        For positives, then negatives: how many pseudo-labels, how many of
        them right, how many hidden labels.
    """
    made = (hidden != -1)
    counts = []
    for value in (1, 0):
        guessed = made & (pseudo == value)
        truly = hidden == value
        counts += [guessed.sum(), (guessed & truly).sum(), truly.sum()]
    return torch.stack(counts)


@HOOKS.register_module()
class PseudoLabelQualityHook(Hook):
    """Precision and recall of an epoch's pseudo-labels, against the truth
    that the training does not see.

    For benchmarks, whose labels were hidden on purpose. A line per epoch goes
    to the log and to ``pseudo_labels.csv`` in the work dir (NaN for an epoch
    of the warm-up); where there is no hidden truth, or pseudo-labels are
    switched off, nothing is written.
    """

    def before_train(self, runner) -> None:
        partial = find_mask(runner.train_dataloader.dataset)
        model = runner.model
        self.head = (model.module if is_model_wrapper(model) else model).head
        self.rows = None
        if partial is None or not getattr(self.head, 'pseudo_weight', 0):
            return
        truth = label_matrix(partial.dataset).astype(np.int8)
        truth[partial.labels != -1] = -1
        if (truth == -1).all():
            return
        self.hidden = torch.from_numpy(truth)
        self.rows = {
            partial.dataset.get_data_info(i)['img_path']: i
            for i in range(len(truth))
        }
        self.path = Path(runner.work_dir, TABLE)

    def before_train_epoch(self, runner) -> None:
        self.counts = torch.zeros(6, dtype=torch.long)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if self.rows is None:
            return
        index = [self.rows[sample.img_path]
                 for sample in data_batch['data_samples']]
        pseudo = self.head.pseudo_labels
        hidden = self.hidden[index].to(pseudo.device, non_blocking=True)
        self.counts = self.counts.to(pseudo.device) + pseudo_label_counts(
            pseudo, hidden)

    def after_train_epoch(self, runner) -> None:
        if self.rows is None:
            return
        all_reduce(self.counts)
        row = quality(self.counts)
        if runner.rank != 0:
            return
        row = dict(epoch=runner.epoch + 1, **row)
        lines = []
        if self.path.is_file():
            with open(self.path, newline='') as file:
                lines = [old for old in csv.DictReader(file)
                         if int(old['epoch']) < row['epoch']]
        with replacing(self.path) as fresh, open(fresh, 'w',
                                                 newline='') as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*lines, row])
        print_log(
            'Pseudo-labels against the hidden truth: positives precision '
            '{positive_precision:.3f} at recall {positive_recall:.3f}, '
            'negatives precision {negative_precision:.4f} at coverage '
            '{negative_recall:.3f}'.format(**row), logger='current')


def quality(counts: Tensor) -> Dict[str, float]:
    """Precision and recall from :func:`pseudo_label_counts`; NaN where
    nothing was guessed."""
    row = {}
    for name, (guessed, right, truly) in zip(
            ('positive', 'negative'), counts.double().cpu().view(2, 3)):
        row[f'{name}_precision'] = float(right / guessed)
        row[f'{name}_recall'] = float(right / truly)
    return row
