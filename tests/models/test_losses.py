import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from trm_ml_mm.models import (
    MultimodalContrastiveLoss,
    PartialAsymmetricLoss,
    RegionDistillationLoss,
)
from trm_ml_mm.models.losses import (
    partial_asymmetric_loss,
    prototype_contrast,
    reduce,
    region_distillation_loss,
)
from trm_ml_mm.registry import MODELS


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


def every_loss(logits, targets):
    """The three losses of a batch; features from the logits."""
    features = torch.stack([logits.sin(), logits.cos()], -1)
    prototypes = F.normalize(torch.randn(logits.shape[1], 2), dim=-1)
    return [
        PartialAsymmetricLoss()(logits, targets),
        RegionDistillationLoss()(logits, -logits.flip(1), targets),
        RegionDistillationLoss(per_class=True)(logits, -logits, targets),
        MultimodalContrastiveLoss()(features, targets == 1, prototypes,
                                    prototypes),
    ]


@pytest.mark.parametrize('classes', [1, 2, 1000])
@pytest.mark.parametrize('labels', [[1], [0], [-1], [-1, 0, 1]])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16,
                                   torch.bfloat16])
def test_losses_stay_finite(classes, labels, dtype):
    """All known, all unknown, and both; logits of every size."""
    sizes = torch.tensor([-200., -100, -30, -1, 0, 1, 30, 100, 200])
    logits = sizes[torch.randint(len(sizes), (4, classes))].to(dtype)
    logits.requires_grad_()
    targets = torch.tensor(labels)[torch.randint(len(labels), (4, classes))]
    for loss in every_loss(logits, targets):
        assert loss.dtype == torch.float32 and loss.isfinite() and loss >= -1e-4
        grad, = torch.autograd.grad(loss, logits, retain_graph=True)
        assert grad.isfinite().all()
        if labels == [-1]:  # and nothing to compare with
            assert loss == 0 or grad.abs().sum() > 0


def test_gradients_agree_with_finite_differences():
    """In double precision. Focusing weights and teacher get no gradient."""
    logits = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    features = torch.randn(4, 3, 5, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.double)
    prototypes = torch.randn(3, 5, dtype=torch.double)
    targets = torch.randint(-1, 2, (4, 3))
    check = torch.autograd.gradcheck
    assert check(lambda x: partial_asymmetric_loss(x, targets, 0., 0., .05),
                 logits)
    for per_class in (False, True):
        assert check(partial(region_distillation_loss, teacher=teacher,
                             temperature=2., per_class=per_class), logits)
    assert check(lambda x: prototype_contrast(x, prototypes), features)
    # Of the focused loss: the weight times the gradient of the plain one.
    plain, = torch.autograd.grad(
        partial_asymmetric_loss(logits, targets, 0., 0., .05).sum(), logits)
    got, = torch.autograd.grad(
        partial_asymmetric_loss(logits, targets, 1., 2., .05).sum(), logits)
    p = logits.detach().sigmoid()
    weight = torch.where(targets == 1, 1 - p, (p - .05).clamp(min=0)**2)
    assert torch.allclose(got, plain * weight)


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
    halved = MultimodalContrastiveLoss(.4, loss_weight=1.)
    want = sum(prototype_contrast(features, prototypes, .2)[positives].mean()
               for prototypes in (text, visual))
    assert torch.allclose(halved(features, positives, visual, text, .5), want)
    with pytest.raises(ValueError, match="^modalities are 'visual', 'text' or "
                       r"both, got \['audio'\]"):
        MultimodalContrastiveLoss(modalities=['audio'])


def test_options_reach_the_losses():
    logits, teacher = torch.randn(2, 6, 3)
    targets = torch.randint(-1, 2, (6, 3))
    got = PartialAsymmetricLoss(.5, 3., .2, 2.)(logits, targets)
    parts = partial_asymmetric_loss(logits, targets, .5, 3., .2)
    assert torch.allclose(got, 6 * parts.sum() / (targets != -1).sum())
    got = RegionDistillationLoss(2., True, 3.)(logits, teacher,
                                               torch.full((6, 3), -1))
    parts = region_distillation_loss(logits, teacher, 2., True)
    assert torch.allclose(got, 3 * parts.mean())


def test_openmmlabs_arguments_reduce_the_loss():
    logits, targets = torch.randn(6, 3), torch.randint(-1, 2, (6, 3))
    parts = partial_asymmetric_loss(logits, targets)
    loss = PartialAsymmetricLoss(loss_weight=2.)
    images, labels = torch.rand(6), torch.rand(6, 3)
    for options, expected in [
            (dict(avg_factor=6), parts.sum() / 6),
            (dict(reduction_override='none'), parts),
            (dict(reduction_override='sum'), parts.sum()),
            (dict(reduction_override='mean'),
             3 * parts.sum() / (targets != -1).sum()),
            (dict(weight=images, avg_factor=4),
             (images[:, None] * parts).sum() / 4),
            (dict(weight=labels),
             3 * (labels * parts).sum() / (targets != -1).sum())]:
        assert torch.allclose(loss(logits, targets, **options), 2 * expected)
    with pytest.raises(ValueError, match='avg_factor'):
        loss(logits, targets, avg_factor=6, reduction_override='sum')


def test_openmmlabs_arguments_reduce_the_other_losses():
    student, teacher = torch.randn(2, 6, 3)
    targets = torch.randint(-1, 2, (6, 3))
    features, visual, text = (torch.randn(6, 3, 4), torch.randn(3, 4),
                              torch.randn(3, 4))
    images, labels = torch.rand(6), torch.rand(6, 3)
    positives = targets == 1
    per_image = (targets == -1).float().mean(1) * region_distillation_loss(
        student, teacher)
    per_label = positives * (prototype_contrast(features, visual, .3)
                             + prototype_contrast(features, text, .3))
    distill, contrast = RegionDistillationLoss(), MultimodalContrastiveLoss(
        .3, loss_weight=1.)
    for loss, inputs, parts, count, weights in [
            (distill, (student, teacher, targets), per_image, 6,
             [(images, images)]),
            (contrast, (features, positives, visual, text), per_label,
             positives.sum(), [(images, images[:, None]), (labels, labels)])]:
        for options, expected in [
                ({}, parts.sum() / count),
                (dict(reduction_override='mean'), parts.sum() / count),
                (dict(reduction_override='none'), parts),
                (dict(reduction_override='sum'), parts.sum()),
                (dict(avg_factor=5), parts.sum() / 5)]:
            assert torch.allclose(loss(*inputs, **options), expected)
        for weight, factor in weights:
            assert torch.allclose(
                loss(*inputs, weight=weight, reduction_override='none'),
                factor * parts)
        with pytest.raises(ValueError, match='reduction_override'):
            loss(*inputs, reduction_override='max')


def test_mmpretrains_csra_head_takes_the_loss():
    head = MODELS.build(dict(
        type='mmpretrain.CSRAClsHead', in_channels=5, num_classes=3,
        num_heads=2, lam=.1,
        loss=dict(type='trm_ml_mm.PartialAsymmetricLoss')))
    features = torch.randn(4, 5, 2, 2)
    targets = torch.randint(-1, 2, (4, 3)).float()
    samples = [DataSample().set_gt_score(row) for row in targets]
    loss = head.loss((features, ), samples)['loss']
    expected = partial_asymmetric_loss(head((features, )), targets).sum() / 4
    assert torch.allclose(loss, expected)
    loss.backward()


def test_a_head_of_mmpretrain_learns_from_known_labels_alone():
    """As a loop that takes the known labels out."""
    head = MODELS.build(dict(
        type='mmpretrain.MultiLabelLinearClsHead', in_channels=5, num_classes=3,
        loss=dict(type='trm_ml_mm.PartialAsymmetricLoss')))
    features, targets = torch.randn(4, 5), torch.randint(-1, 2, (4, 3))
    ours = torch.nn.Linear(5, 3)
    ours.load_state_dict(head.fc.state_dict())
    samples = [DataSample().set_gt_score(row) for row in targets.float()]
    steps = [torch.optim.SGD(m.parameters(), .5) for m in (head, ours)]
    for _ in range(5):
        head.loss((features, ), samples)['loss'].backward()
        logits = ours(features)
        total = 0.
        for b, c in (targets != -1).nonzero().tolist():
            p = logits[b, c].sigmoid()
            shifted = (p - .05).clamp(min=0)
            total = total - (
                (1 - p).detach() * p.log() if targets[b, c] == 1 else
                shifted.detach()**2 * (1 - shifted).log())
        (total / 4).backward()
        for step in steps:
            step.step()
            step.zero_grad()
    assert torch.allclose(head.fc.weight, ours.weight, atol=1e-6)
    assert torch.allclose(head.fc.bias, ours.bias, atol=1e-6)


@pytest.mark.parametrize('loss, options', [
    (PartialAsymmetricLoss, dict(gamma_pos=-1)),
    (PartialAsymmetricLoss, dict(gamma_neg=-1)),
    (PartialAsymmetricLoss, dict(loss_weight=-1)),
    (PartialAsymmetricLoss, dict(clip=1)),
    (PartialAsymmetricLoss, dict(clip=-.1)),
    (RegionDistillationLoss, dict(temperature=0)),
    (RegionDistillationLoss, dict(loss_weight=-1)),
    (MultimodalContrastiveLoss, dict(temperature=0)),
    (MultimodalContrastiveLoss, dict(loss_weight=-1)),
    (MultimodalContrastiveLoss, dict(modalities=[])),
])
def test_options_out_of_their_range_are_refused(loss, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        loss(**options)
    PartialAsymmetricLoss(clip=0)  # no margin


@pytest.mark.parametrize('here, other', [(3, 5), (1, 0), (0, 0)])
def test_two_ranks_divide_by_their_mean_count(monkeypatch, here, other):
    """One process stands for a rank; tests/ranks.py runs real ones."""
    monkeypatch.setattr(reduce, 'get_world_size', lambda: 2)
    monkeypatch.setattr(reduce, 'all_reduce', lambda count: count.add_(other))
    got = reduce.normalize_by_global_count(torch.tensor(6. * here),
                                           torch.tensor(here))
    assert got == (6 * here / ((here + other) / 2) if here else 0)
    low = reduce.normalize_by_global_count(torch.tensor(6.), torch.tensor(0))
    assert low == 6 / max(other / 2, .5)
