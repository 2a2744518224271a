"""What a loss does with unknown labels: leave them out, count them as absent,
or choose (class-aware selective loss)."""
from pathlib import Path
from typing import Optional, Tuple, Union

import torch
from torch import Tensor

from trm_ml_mm.labels import ABSENT, UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.arrays import read_arrays
from trm_ml_mm.utils.checks import (
    check_choice,
    check_not_negative,
    check_ratio,
)
from trm_ml_mm.utils.io import existing

from .partial_asymmetric import PartialAsymmetricLoss, partial_asymmetric_loss

MODES = ('ignore', 'negative', 'selective')


def selected_negatives(logits: Tensor,
                       targets: Tensor,
                       prior: Optional[Tensor] = None,
                       prior_threshold: float = 0.05,
                       top: int = 5) -> Tensor:
    """Unknown labels that count as absent, by the rule of CSL (Ben-Baruch et
    al., CVPR 2022, arXiv 2110.10955).

    Stated there: an unknown label is left out if its class is common in the
    data (label prior), or if the model finds it likely in this image (label
    likelihood); else it is a negative. As in its code's options, a class is
    common if its prior is above a threshold, and the ``top`` likeliest labels
    of an image are likely. Ours: these are the likeliest of the image's
    *unknown* labels, and labels that tie with the last of them are left out
    too.

    Args:
        logits: ``(B, C)``; no gradient flows.
        targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        prior: ``(C,)`` ratio of images that have each class; None: no class
            is left out for it.
        prior_threshold: Unknown labels of classes above it are left out.
        top: How many of the likeliest unknown labels of an image are left out.

    Returns:
        ``(B, C)`` bool.
    """
    unknown = targets == UNKNOWN
    chosen = unknown
    if top:
        scores = logits.detach().masked_fill(~unknown, -torch.inf)
        # With fewer unknown labels than `top`, -inf: all are left out.
        last = scores.topk(min(top, scores.shape[1])).values[:, -1:]
        chosen = chosen & (scores < last)
    if prior is not None:
        chosen = chosen & (prior <= prior_threshold)
    return chosen


@MODELS.register_module()
class SelectiveLoss(PartialAsymmetricLoss):
    """:class:`PartialAsymmetricLoss` that may count unknown labels as absent
    (partial asymmetric loss, P-ASL, of CSL, arXiv 2110.10955).

    The mean is taken over the labels that count, times C. The paper sums over
    them; with all unknown labels as negatives, the two are the same.

    In TRM-ML's head, switch pseudo-labels off (``pseudo_weight=0``), or an
    unknown label gets both a pseudo-label and this treatment. It also replaces
    the head's ``assume_negative``, which applies to classes without labelled
    negatives only; set that to 0.

    Args:
        mode: What happens to unknown labels. 'ignore': they are left out, as
            in :class:`PartialAsymmetricLoss`; 'negative': all of them count
            as absent; 'selective': those of :func:`selected_negatives` do.
        gamma_unknown: Focusing of unknown labels that count as absent. The
            paper has it at least as large as ``gamma_neg``, so that labels
            that a person gave weigh more.
        prior: File (.npy) of the label prior ``(C,)``, for 'selective'. The
            paper's is the mean prediction on the training set of a model that
            was trained with 'ignore'; ``tools/class_prior.py`` writes it. It is
            read when training starts. None: no class is left out for its
            prior.
        prior_threshold: See :func:`selected_negatives`.
        top: See :func:`selected_negatives`.
        **kwargs: See :class:`PartialAsymmetricLoss`.

    Raises:
        ValueError: If an option is out of its range, or ``prior`` is given
            without 'selective'.
    """

    def __init__(self,
                 mode: str = 'selective',
                 gamma_unknown: float = 4.,
                 prior: Optional[str] = None,
                 prior_threshold: float = 0.05,
                 top: int = 5,
                 **kwargs):
        super().__init__(**kwargs)
        check_choice(MODES, mode=mode)
        check_not_negative(gamma_unknown=gamma_unknown)
        check_ratio(prior_threshold=prior_threshold)
        if isinstance(top, bool) or not isinstance(top, int) or top < 0:
            raise ValueError(f'top must be a whole number of at least 0, got '
                             f'{top!r}.')
        if prior is not None and mode != 'selective':
            raise ValueError(f"prior serves mode='selective' alone, and mode "
                             f'is {mode!r}: leave prior out.')
        self.mode = mode
        self.gamma_unknown = gamma_unknown
        self.prior = prior
        self.prior_threshold = prior_threshold
        self.top = top
        self._prior = None  # what the file holds

    def label_losses(self, logits: Tensor, targets: Tensor,
                     partial: bool) -> Tuple[Tensor, Tensor]:
        """See :meth:`PartialAsymmetricLoss.label_losses`. Where ``targets``
        are some of the labels only, the others are not unknown."""
        known, counted = super().label_losses(logits, targets, partial)
        if partial or self.mode == 'ignore':
            return known, counted
        chosen = targets == UNKNOWN
        if self.mode == 'selective':
            chosen = selected_negatives(logits, targets,
                                        self._prior_of(logits),
                                        self.prior_threshold, self.top)
        assumed = partial_asymmetric_loss(
            logits, torch.where(chosen, ABSENT, UNKNOWN),
            gamma_neg=self.gamma_unknown, clip=self.clip)
        return known + assumed, counted | chosen

    def _prior_of(self, logits: Tensor) -> Optional[Tensor]:
        if self.prior is not None and self._prior is None:
            self._prior = read_prior(self.prior, logits.shape[1]).to(
                logits.device)
        return self._prior


def read_prior(path: Union[str, Path], num_classes: int) -> Tensor:
    """The label prior ``(C,)`` in a .npy file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else, or another number of classes.
    """
    existing(path, 'Label prior', 'write it with tools/class_prior.py')
    try:
        prior = read_arrays(path).get('')
        if prior is None or prior.ndim != 1 or prior.dtype.kind != 'f':
            raise ValueError('it is no row of numbers')
        if not ((prior >= 0) & (prior <= 1)).all():
            raise ValueError('a ratio does not lie in [0, 1]')
        if len(prior) != num_classes:
            raise ValueError(f'it has {len(prior)} classes and the model '
                             f'{num_classes}')
    except (ValueError, OSError) as error:
        raise ValueError(f'{path} is no label prior of this model ({error}): '
                         'write it with tools/class_prior.py.') from error
    return torch.from_numpy(prior).float()
