"""What a loss does with unknown labels, against plain loops."""
import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ranks

from trm_ml_mm.models import PartialAsymmetricLoss, SelectiveLoss
from trm_ml_mm.models.losses import selected_negatives
from trm_ml_mm.models.losses.selective import MODES

PRIOR = torch.tensor([.6, .1, .5, .2, .05])


def batch(dtype=torch.float):
    """Logits with many ties, and labels of which a row is all unknown."""
    logits = torch.randint(-3, 4, (7, 5)).to(dtype)
    targets = torch.randint(-1, 2, (7, 5)).float()
    targets[0] = -1
    return logits, targets


def left_out(logits, targets, prior, threshold, top):
    """(b, c) of unknown labels that are left out, by sorting each image."""
    found = set()
    for b, row in enumerate(targets.tolist()):
        unknown = [c for c, value in enumerate(row) if value == -1]
        scores = sorted((logits[b, c].item() for c in unknown), reverse=True)
        likely = scores[:top]
        for c in unknown:
            if logits[b, c].item() in likely or (
                    prior is not None and prior[c] > threshold):
                found.add((b, c))
    return found


@pytest.mark.parametrize('top', [0, 1, 2, 5, 9])
@pytest.mark.parametrize('prior', [None, PRIOR])
def test_the_selection_equals_a_loop(top, prior):
    """Ties with the last of the likeliest are left out too."""
    for _ in range(20):
        logits, targets = batch()
        got = selected_negatives(logits, targets, prior, .5, top)
        out = left_out(logits, targets, prior, .5, top)
        for b in range(7):
            for c in range(5):
                assert got[b, c].item() == (targets[b, c].item() == -1
                                            and (b, c) not in out)


def written(path, prior=PRIOR):
    np.save(path, np.asarray(prior))
    return str(path)


@pytest.mark.parametrize('mode', MODES)
def test_the_loss_equals_a_loop(mode, tmp_path):
    options = dict(prior=written(tmp_path / 'prior.npy'),
                   prior_threshold=.5) if mode == 'selective' else {}
    loss = SelectiveLoss(mode, gamma_unknown=3., top=2, gamma_pos=1.,
                         gamma_neg=2., clip=.1, loss_weight=.5, **options)
    for _ in range(10):
        logits, targets = batch()
        out = left_out(logits, targets, PRIOR, .5, 2)
        total, count = 0., 0
        for b in range(7):
            for c in range(5):
                p = 1 / (1 + math.exp(-logits[b, c].item()))
                m = max(p - .1, 0)
                value = targets[b, c].item()
                if value == -1 and (mode == 'ignore' or (
                        mode == 'selective' and (b, c) in out)):
                    continue
                count += 1
                total += {1: -(1 - p) * math.log(p),
                          0: -m**2 * math.log(1 - m),
                          -1: -m**3 * math.log(1 - m)}[value]
        assert loss(logits, targets).item() == pytest.approx(
            .5 * 5 * total / count, rel=1e-5)


@pytest.mark.parametrize('reduction', [None, 'none', 'sum', 'mean'])
@pytest.mark.parametrize('weighs', [False, True])
def test_to_ignore_is_the_partial_asymmetric_loss(reduction, weighs):
    logits, targets = batch()
    options = dict(reduction_override=reduction,
                   weight=torch.rand(7, 5) if weighs else None)
    for value in ({}, dict(gamma_pos=.5, gamma_neg=3., clip=0.)):
        plain = PartialAsymmetricLoss(**value)(logits, targets, **options)
        assert torch.equal(plain, SelectiveLoss('ignore', **value)(
            logits, targets, **options))


def test_all_negatives_are_the_loss_of_full_labels():
    logits, targets = batch()
    got = SelectiveLoss('negative', gamma_unknown=2.)(logits, targets)
    absent = torch.where(targets == -1, 0., targets)
    assert torch.allclose(got, PartialAsymmetricLoss()(logits, absent))
    # Which is also the selection that selects everything.
    assert torch.allclose(got, SelectiveLoss(gamma_unknown=2., top=0)(
        logits, targets))


@pytest.mark.parametrize('mode', MODES)
def test_labels_of_a_part_leave_the_others_alone(mode):
    """Pseudo-labels and assumed negatives: UNKNOWN means not among them."""
    logits, part = batch()
    among = torch.rand(7, 5) < .5
    assert torch.equal(SelectiveLoss(mode)(logits, part, among),
                       PartialAsymmetricLoss()(logits, part, among))


@pytest.mark.parametrize('mode', MODES)
def test_gradients_agree_with_finite_differences(mode, tmp_path):
    """Without focusing, whose weights get no gradient; the choice gets none
    either."""
    torch.manual_seed(0)
    logits = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    _, targets = batch()
    options = dict(prior=written(tmp_path / 'prior.npy')) if (
        mode == 'selective') else {}
    loss = SelectiveLoss(mode, gamma_unknown=0., gamma_pos=0., gamma_neg=0.,
                         top=2, prior_threshold=.4, **options)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)
    grad, = torch.autograd.grad(loss(logits, targets), logits)
    learns = (grad != 0) & (targets == -1)
    assert learns.any() == (mode != 'ignore')
    if mode == 'selective':
        assert not learns[:, PRIOR > .4].any()


def test_without_a_label_that_counts_the_loss_is_zero():
    logits = torch.randn(4, 5, requires_grad=True)
    loss = SelectiveLoss(top=5)(logits, torch.full((4, 5), -1.))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_a_head_of_mmpretrain_takes_it():
    head = MODELS.build(dict(
        type='mmpretrain.MultiLabelLinearClsHead', in_channels=5,
        num_classes=5, loss=dict(type='trm_ml_mm.SelectiveLoss',
                                 mode='negative', gamma_unknown=2.)))
    features, (_, targets) = torch.randn(7, 5), batch()
    samples = [DataSample().set_gt_score(row) for row in targets]
    got = head.loss((features, ), samples)['loss']
    absent = torch.where(targets == -1, 0., targets)
    parts = PartialAsymmetricLoss()(head.fc(features), absent,
                                    reduction_override='sum')
    assert torch.allclose(got, parts / 7)


def test_two_ranks_take_the_step_of_the_joined_batch():
    out = ranks('tests/ranks.py', 2, 'selective_loss_equals_joined_batch')
    assert out.count('the loss agrees') == 2 * len(MODES)


@pytest.mark.parametrize('options', [
    dict(mode='guess'), dict(gamma_unknown=-1), dict(top=-1), dict(top=1.5),
    dict(prior_threshold=2), dict(gamma_neg=-1)])
def test_options_out_of_their_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SelectiveLoss(**options)


def test_a_prior_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match='prior serves'):
        SelectiveLoss('negative', prior='x.npy')
    logits, targets = batch()
    missing = SelectiveLoss(prior=str(tmp_path / 'none.npy'))  # read later
    with pytest.raises(FileNotFoundError, match='class_prior.py'):
        missing(logits, targets)
    for prior, why in ((PRIOR[:3], 'has 3 classes and the model 5'),
                       (PRIOR - 1, 'a ratio does not lie'),
                       (PRIOR * torch.nan, 'a ratio does not lie'),
                       (PRIOR[None], 'no row of numbers'),
                       ([1, 0, 0, 1, 0], 'no row of numbers')):
        loss = SelectiveLoss(prior=written(tmp_path / 'prior.npy', prior))
        with pytest.raises(ValueError, match=why):
            loss(logits, targets)
    (tmp_path / 'prior.npy').write_bytes(b'no array')
    with pytest.raises(ValueError, match='no label prior of this model'):
        loss(logits, targets)
