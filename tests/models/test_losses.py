import math

import pytest
import torch
import torch.nn.functional as F

from trm_ml_mm.models import (
    MultimodalContrastiveLoss,
    PartialAsymmetricLoss,
    RegionDistillationLoss,
)
from trm_ml_mm.models.losses import (
    partial_asymmetric_loss,
    prototype_contrast,
    region_distillation_loss,
)


def test_asymmetric_loss_equals_a_loop():
    logits = torch.randn(5, 4) * 3
    targets = torch.randint(-1, 2, (5, 4))
    got = partial_asymmetric_loss(logits, targets, 1., 2., .05)
    for b in range(5):
        for c in range(4):
            p = 1 / (1 + math.exp(-logits[b, c].item()))
            m = max(p - .05, 0)
            want = {1: -(1 - p) * math.log(p),
                    0: -m**2 * math.log(1 - m),
                    -1: 0.}[targets[b, c].item()]
            assert got[b, c].item() == pytest.approx(want, abs=1e-6)


def test_without_focusing_it_is_masked_bce():
    logits, targets = torch.randn(6, 3), torch.randint(-1, 2, (6, 3))
    got = partial_asymmetric_loss(logits, targets, 0., 0., 0.)
    want = F.binary_cross_entropy_with_logits(
        logits, targets.clamp(min=0).float(), reduction='none')
    assert torch.allclose(got, want * (targets != -1), atol=1e-6)


def test_module_divides_by_the_known_labels():
    logits, targets = torch.randn(6, 3), torch.randint(-1, 2, (6, 3))
    got = PartialAsymmetricLoss()(logits, targets)
    parts = partial_asymmetric_loss(logits, targets)
    assert torch.allclose(got, 3 * parts.sum() / (targets != -1).sum())


def test_a_few_labels_among_many_do_not_weigh_as_all():
    logits, targets = torch.randn(6, 3), torch.full((6, 3), -1)
    targets[0], among = 1, torch.zeros(6, 3, dtype=torch.bool)
    loss, parts = PartialAsymmetricLoss(), partial_asymmetric_loss(
        logits, targets).sum()
    for others, count in ((0, 3), (2, 3), (12, 12)):  # the larger number
        among.flatten()[:others] = True
        assert torch.allclose(loss(logits, targets, among), 3 * parts / count)


def test_no_known_label_gives_zero_and_finite_gradients():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = PartialAsymmetricLoss()(logits, torch.full((4, 3), -1))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize('value', [-200., -30., 30., 200.])
def test_extreme_logits_stay_finite(value):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.full((2, 2), value, dtype=dtype, requires_grad=True)
        for target in (0, 1):
            loss = PartialAsymmetricLoss()(logits,
                                           torch.full((2, 2), target))
            grad, = torch.autograd.grad(loss, logits)
            assert loss.dtype == torch.float32
            assert loss.isfinite() and grad.isfinite().all()


def test_asymmetric_gradient_is_right():
    logits = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    targets = torch.randint(-1, 2, (4, 3))

    def plain(x):
        return partial_asymmetric_loss(x, targets, 0., 0., .05).double()

    assert torch.autograd.gradcheck(plain, logits, eps=1e-3, atol=1e-2)


@pytest.mark.parametrize('per_class', [False, True])
@pytest.mark.parametrize('temperature', [1., 4.])
def test_distillation_equals_torch_kl(per_class, temperature):
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    got = region_distillation_loss(student, teacher, temperature, per_class)
    if per_class:
        p = torch.distributions.Bernoulli(logits=teacher / temperature)
        q = torch.distributions.Bernoulli(logits=student / temperature)
        want = torch.distributions.kl_divergence(p, q).sum(1)
    else:
        want = F.kl_div((student / temperature).log_softmax(1),
                        (teacher / temperature).log_softmax(1),
                        reduction='none', log_target=True).sum(1)
    assert torch.allclose(got, temperature**2 * want, atol=1e-5)


def test_distillation_teaches_the_query_level_only():
    student = torch.randn(5, 7, requires_grad=True)
    teacher = torch.randn(5, 7, requires_grad=True)
    unknown = torch.full((5, 7), -1.)
    RegionDistillationLoss()(student, teacher, unknown).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    same = torch.randn(5, 7)
    assert RegionDistillationLoss()(same, same, unknown).item() == (
        pytest.approx(0, abs=1e-6))


def test_distillation_weighs_an_image_by_its_share_of_unknown_labels():
    student, teacher = torch.randn(2, 3, 4)
    targets = torch.tensor([[1., 0, 0, 0], [0, 0, -1, -1], [-1] * 4])
    each = region_distillation_loss(student, teacher)
    expected = (0 * each[0] + .5 * each[1] + each[2]) / 3
    got = RegionDistillationLoss()(student, teacher, targets)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)


def test_contrast_equals_a_loop():
    features, prototypes = torch.randn(3, 4, 8), torch.randn(4, 8)
    got = prototype_contrast(features, prototypes, .1)
    for b in range(3):
        for c in range(4):
            similar = [
                math.exp(
                    F.cosine_similarity(features[b, c], prototypes[k],
                                        dim=0).item() / .1) for k in range(4)
            ]
            want = -math.log(similar[c] / sum(similar))
            assert got[b, c].item() == pytest.approx(want, abs=1e-4)


def test_contrast_is_a_mean_over_positives_and_a_sum_over_modalities():
    features = torch.randn(3, 4, 8, requires_grad=True)
    text, visual = torch.randn(2, 4, 8)
    positives = torch.zeros(3, 4, dtype=torch.bool)
    positives[0, 1] = positives[2, 3] = True
    got = MultimodalContrastiveLoss(loss_weight=1.)(features, positives,
                                                    visual, text)
    want = sum(prototype_contrast(features, prototypes)[positives].mean()
               for prototypes in (text, visual))
    assert torch.allclose(got, want)
    got.backward()
    assert (features.grad[~positives] == 0).all()
    with pytest.raises(ValueError, match='modalities'):
        MultimodalContrastiveLoss(modalities=['audio'])
