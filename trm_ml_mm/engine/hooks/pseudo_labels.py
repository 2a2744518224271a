"""Count pseudo-labels, and compare them with the labels that were hidden."""
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

from trm_ml_mm.datasets import find_masks
from trm_ml_mm.datasets.base import sample_key
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, stacked
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.io import atomic_write
from trm_ml_mm.utils.precision import as_double

TABLE = 'pseudo_labels.csv'
KINDS = 'positive', 'negative'
COUNTS = 8  # of pseudo_label_counts


def pseudo_label_counts(pseudo: Tensor, hidden: Tensor) -> Tensor:
    """The counts that precision and recall follow from.

    Args:
        pseudo: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        hidden: ``(B, C)`` the true values of hidden labels; UNKNOWN if a label
            was known, or if nobody knows it.

    Returns:
        ``(8,)``, for positives and then for negatives: number of
        pseudo-labels, of those whose truth is known, of correct ones, and of
        hidden labels.
    """
    is_hidden = hidden != UNKNOWN
    counts = []
    for value in (PRESENT, ABSENT):
        guessed, actual = pseudo == value, hidden == value
        counts += [guessed.sum(), (guessed & is_hidden).sum(),
                   (guessed & actual).sum(), actual.sum()]
    return torch.stack(counts)


@HOOKS.register_module()
class PseudoLabelQualityHook(Hook):
    """Number of an epoch's pseudo-labels; in benchmarks, whose labels are
    hidden on purpose, also precision and recall against that truth, which
    training does not see.

    One line per epoch goes to ``pseudo_labels.csv`` in the work dir, and to the
    log if there is hidden truth (NaN during the warm-up, and without truth).
    Does nothing if the head gives no pseudo-labels.
    """

    def before_train(self, runner) -> None:
        self.rows = self.latest = None
        self.latest_quality = {}
        masks = find_masks(runner.train_dataloader.dataset)
        model = runner.model
        head = getattr(model.module if is_model_wrapper(model) else model,
                       'head', None)
        prototypes = getattr(head, 'prototypes', None)
        if not masks or prototypes is None or not head.pseudo_weight:
            return
        self.hidden = stacked([mask.hidden_matrix() for mask in masks])
        self.has_truth = bool(self.hidden.summary().known.any())
        self.rows = {}  # of samples that hide labels
        if self.has_truth:
            keys = [sample_key(mask.get_data_info(i))
                    for mask in masks for i in range(len(mask))]
            self.rows = {key: i for i, key in enumerate(keys)}
        self.path = Path(runner.work_dir, TABLE)
        # The prototypes return the pseudo-labels: listen to them.
        self.listener = prototypes.register_forward_hook(self._listen)

    def _listen(self, module, inputs, pseudo: Tensor) -> None:
        self.latest = pseudo

    def before_train_epoch(self, runner) -> None:
        self.counts = torch.zeros(COUNTS, dtype=torch.long)

    def epoch_state(self) -> Tensor:
        """For a run that is stopped within an epoch."""
        return self.counts.cpu()

    def set_epoch_state(self, counts: Tensor) -> None:
        self.counts = counts

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if self.rows is None:
            return
        samples = data_batch['data_samples']
        hidden = np.full((len(samples), self.hidden.shape[1]), UNKNOWN,
                         np.int8)
        index = [self.rows.get(sample_key(sample), -1) for sample in samples]
        found = [i for i, row in enumerate(index) if row >= 0]
        hidden[found] = self.hidden.rows([index[i] for i in found])
        hidden = torch.from_numpy(hidden).to(self.latest.device,
                                             non_blocking=True)
        self.counts = self.counts.to(self.latest.device) + (
            pseudo_label_counts(self.latest, hidden))

    def after_train_epoch(self, runner) -> None:
        if self.rows is None:
            return
        all_reduce(self.counts)
        found = quality(self.counts)
        self.latest_quality = found if self.has_truth else {}
        row = dict(epoch=runner.epoch + 1, **found, **numbers(self.counts))
        if runner.rank != 0:
            return
        earlier = []
        if self.path.is_file():
            with open(self.path, newline='') as file:
                earlier = [old for old in csv.DictReader(file)
                           if int(old['epoch']) < row['epoch']]
        with atomic_write(self.path) as fresh, open(fresh, 'w',
                                                    newline='') as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*earlier, row])
        if not self.has_truth:
            return
        print_log(
            'Pseudo-labels against the hidden truth: positives precision '
            '{positive_precision:.3f}, recall {positive_recall:.3f}; '
            'negatives precision {negative_precision:.4f}, recall '
            '{negative_recall:.3f}'.format(**row), logger='current')

    def after_train(self, runner) -> None:
        if self.rows is not None:
            self.listener.remove()


def quality(counts: Tensor) -> Dict[str, float]:
    """Precision and recall from :func:`pseudo_label_counts`; NaN where nothing
    was guessed."""
    row = {}
    for name, (_, judged, right, actual) in zip(
            KINDS, as_double(counts.cpu()).view(2, -1)):
        row[f'{name}_precision'] = float(right / judged)
        row[f'{name}_recall'] = float(right / actual)
    return row


def numbers(counts: Tensor) -> Dict[str, int]:
    """How many pseudo-labels there were, of how many the truth is known, and
    how many of these were right."""
    row = {}
    for name, (given, judged, right, _) in zip(
            KINDS, counts.view(2, -1).tolist()):
        row.update({f'{name}_given': given, f'{name}_judged': judged,
                    f'{name}_right': right})
    return row
