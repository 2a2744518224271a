"""Many classes: a step on some of them, and prediction in blocks."""
import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ranks

from trm_ml_mm.models import (
    CategoryRelations,
    CLIPFeatures,
    PromptedTextEncoder,
    class_blocks,
    load_clip,
)
from trm_ml_mm.models import prototypes as prototypes_module
from trm_ml_mm.models.alignment import cosine_spread
from trm_ml_mm.models.class_sampling import sample_classes
from trm_ml_mm.models.heads import zero_shot_scores
from trm_ml_mm.models.label_statistics import LabelCounts
from trm_ml_mm.models.losses import prototype_contrast
from trm_ml_mm.models.prototypes import MultimodalPrototypes, prototype_score

C, D, B = 24, 16, 6
LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')
# Losses over labels are means times the number of classes.
PER_LABEL = ('loss_cls', 'loss_region', 'loss_pseudo', 'loss_assumed')


def make_head(classes=C, **options):
    torch.manual_seed(0)
    head = MODELS.build(dict(dict(
        type='trm_ml_mm.TextRegionMatchingHead', num_classes=classes, dim=D,
        loss=LOSS, region_loss=LOSS,
        distillation=dict(type='trm_ml_mm.RegionDistillationLoss'),
        contrast=dict(type='trm_ml_mm.MultimodalContrastiveLoss'),
        prototypes=dict(type='trm_ml_mm.MultimodalPrototypes',
                        warmup_images=0, min_precision=0.),
        pseudo_weight=.5, assume_negative=.1, relations=10.), **options))
    for value in head.parameters():
        value.data.add_(.2 * torch.randn_like(value))
    return head.train()


def features(seed, classes=C):
    random = torch.Generator().manual_seed(seed)
    text = F.normalize(torch.randn(1, classes, D, generator=random), dim=-1)
    dense = torch.randn(B, D, 3, 3, generator=random)
    return CLIPFeatures((dense, ), text, text[0].roll(1, 0))


def labels(seed, few=True):
    """Six classes with known labels; four of them have no known negative."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.full((B, C), -1.)
    known = [2, 3, 7, 11, 12, 20] if few else range(C)
    targets[:, known] = torch.randint(
        -1, 2, (B, len(known)), generator=random).float()
    targets[:, known[:4]] = targets[:, known[:4]].clamp(min=0) * 2 - 1
    targets[0, known] = 1.
    return targets


def samples(targets):
    return [DataSample().set_gt_score(row) for row in targets]


def step(head, feats, targets):
    """Losses, and gradients of all that is learned."""
    head.zero_grad()
    losses = head.loss(feats, samples(targets))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    return losses, {k: p.grad for k, p in head.named_parameters()
                    if p.grad is not None}


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=name, rtol=1e-5,
                                   atol=1e-5, equal_nan=True)


def of_classes(head, classes):
    """A dense head of these classes alone, with their parameters."""
    small = make_head(len(classes), sampled_classes=None,
                      relation_rank=head.relations.rank)
    small.prototypes.prepare(0)
    state = head.state_dict()
    for prefix, module in head.named_modules():
        for name, axes in getattr(module, 'class_axes', {}).items():
            key = f'{prefix}.{name}'.lstrip('.')
            for axis in axes if key in state else ():
                state[key] = state[key].index_select(axis, classes)
    small.load_state_dict(state)
    small.label_statistics._whole = head.label_statistics._whole
    return small


@pytest.mark.parametrize('rank', [None, 3])
def test_a_sampled_step_is_a_dense_step_of_its_classes(monkeypatch, rank):
    """Every loss term, gradient and memory, over steps that all have the same
    ten classes; losses over labels are C / K times as large."""
    classes = torch.tensor([0, 2, 3, 5, 7, 11, 12, 16, 20, 23])
    monkeypatch.setattr(
        'trm_ml_mm.models.heads.text_region.sample_classes',
        lambda count, batch, seen: classes if count else None)
    head = make_head(sampled_classes=10, relation_rank=rank)
    head.prototypes.prepare(0)
    # As common in all classes: the prior of few of them depends on the others.
    head.label_statistics.set_training_labels(LabelCounts(
        (labels(0) == 0).any(0) * 15, torch.full((C, ), 5), torch.tensor(20)))
    feats = features(1)
    head.calibrate(feats)
    small = of_classes(head, classes)
    total = dict.fromkeys(PER_LABEL, 0.)
    for number in range(12):
        feats, targets = features(number), labels(number)
        got, gradients = step(head, feats, targets)
        own = CLIPFeatures(feats, feats.text[:, classes],
                           feats.zero_shot_text[classes])
        expected, dense = step(small, own, targets[:, classes])
        for name in PER_LABEL:
            total[name] += got[name].item()
            expected[name] = expected[name] * C / 10
        assert_close(got, expected)
    assert all(value > 0 for value in total.values())
    # What was learned of the classes is the same, the rest has not moved.
    outside = [c for c in range(C) if c not in classes.tolist()]
    for name in ('visual', 'visual_count'):
        whole = getattr(head.prototypes, name)
        torch.testing.assert_close(whole[classes],
                                   getattr(small.prototypes, name))
        assert (whole[outside] == 0).all()
    history = head.prototypes.history
    torch.testing.assert_close(history[..., classes],
                               small.prototypes.history, equal_nan=True)
    assert history[0][:, outside].isnan().all()
    assert (history[1, -12 * B:] == torch.cat(
        [labels(n) for n in range(12)])).all()  # labels are never NaN
    for name, value in gradients.items():
        if name in ('bias', 'region.query_offset', 'relations.left'):
            assert (value[outside] == 0).all()
            assert (value[classes] != 0).any()


@pytest.mark.parametrize('term', ['loss_contrast', 'loss_distillation'])
def test_gradients_of_a_sampled_step_are_those_of_its_classes(monkeypatch,
                                                               term):
    classes = torch.tensor([0, 2, 3, 5, 7, 11, 12, 16, 20, 23])
    head = make_head(sampled_classes=10)
    head.prototypes.prepare(0)
    small, feats = of_classes(head, classes), features(1)
    own = CLIPFeatures(feats, feats.text[:, classes],
                       feats.zero_shot_text[classes])
    targets = labels(1)
    head.losses(head.match(feats, classes), targets)[term].backward()
    small.losses(small.match(own), targets[:, classes])[term].backward()
    for (name, one), (_, other) in zip(head.named_parameters(),
                                       small.named_parameters()):
        if other.grad is not None:
            grad = one.grad
            if grad.shape != other.grad.shape:
                grad = grad[classes]
            torch.testing.assert_close(grad, other.grad, msg=name)


@pytest.mark.parametrize('count', [C, C + 5])
def test_nothing_is_sampled_where_all_classes_fit(count):
    for number in range(3):
        dense, sampled = make_head(), make_head(sampled_classes=count)
        one = step(dense, features(number), labels(number))
        other = step(sampled, features(number), labels(number))
        for a, b in zip(one, other):
            assert all(torch.equal(a[k], b[k]) for k in a | b)


def counts(positives, negatives):
    return LabelCounts(torch.tensor(negatives), torch.tensor(positives),
                       torch.tensor(4))


def test_classes_of_known_labels_are_always_in():
    random = torch.Generator().manual_seed(0)
    for number in range(50):
        positives, negatives = (
            (torch.rand(2, 30, generator=random) < .1).long())
        batch = LabelCounts(negatives, positives, torch.tensor(4))
        labelled = (positives + negatives).nonzero()[:, 0].tolist()
        classes = sample_classes(8, batch, torch.tensor(number)).tolist()
        assert set(labelled) <= set(classes)
        assert len(classes) == max(8, len(labelled))
        assert classes == sorted(set(classes))


def test_the_others_are_drawn_anew_and_alike():
    batch = counts([1, 0, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0])
    drawn = [sample_classes(4, batch, torch.tensor(seen)).tolist()
             for seen in range(0, 400 * 32, 32)]
    again = sample_classes(4, batch, torch.tensor(64)).tolist()
    assert again == drawn[2]
    others = [c for classes in drawn for c in classes if c not in (0, 3)]
    assert len(others) == 800
    for c in (1, 2, 4, 5):  # 200 each; the standard deviation is 10
        assert 150 < others.count(c) < 250
    everything = counts([1] * 6, [0] * 6)
    assert sample_classes(4, everything, torch.tensor(0)).tolist() == [
        0, 1, 2, 3, 4, 5]


def test_a_resumed_training_samples_as_it_would_have():
    """Three steps; or two, a checkpoint, and one. Loss and memory."""
    steps = [(features(n), labels(n)) for n in range(3)]
    whole = make_head(sampled_classes=9)
    for feats, targets in steps:
        last = whole.loss(feats, samples(targets))
    first = make_head(sampled_classes=9)
    for feats, targets in steps[:2]:
        first.loss(feats, samples(targets))
    torch.manual_seed(77)
    resumed = make_head(sampled_classes=9)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.manual_seed(78)
    losses = resumed.loss(steps[2][0], samples(steps[2][1]))
    assert all(torch.equal(last[k], losses[k]) for k in last)
    for key, value in whole.state_dict().items():
        assert torch.equal(value.nan_to_num(9),
                           resumed.state_dict()[key].nan_to_num(9)), key


def test_ranks_sample_alike_and_equal_one_rank(tmp_path):
    out = ranks('tests/ranks.py', 3, 'sampled_steps_agree', tmp_path)
    assert [out.count(f'of {world}: agrees') for world in (2, 3)] == [2, 3]


def small_limits(monkeypatch, similarities=40, at_once=5):
    monkeypatch.setattr(class_blocks, 'MAX_SIMILARITIES', similarities)
    monkeypatch.setattr(class_blocks, 'CLASSES_AT_ONCE', at_once)


def test_a_step_in_blocks_equals_the_dense_one(monkeypatch):
    """Losses, gradients and memory, with the start measured in blocks too."""
    heads = [make_head(), make_head()]
    results = []
    for head, cut in zip(heads, (False, True)):
        if cut:
            small_limits(monkeypatch)
            assert len(class_blocks.similarity_blocks(C, B * C)) == C
        for number in range(3):
            feats = features(number).replace(text_mean=torch.full((D,), .1))
            found = step(head, feats, labels(number, few=False))
        results.append(found)
    for one, other in zip(*results):
        assert_close(one, other)
    assert_close(*(head.state_dict() for head in heads))


@pytest.mark.parametrize('block', [1, 7, 24])
def test_similarities_in_blocks_are_the_dense_ones(monkeypatch, block):
    random = torch.Generator().manual_seed(3)
    query = torch.randn(B, C, D, generator=random, requires_grad=True)
    memory = torch.randn(C, D, generator=random)
    weight = torch.rand(B, C, generator=random)

    def found():
        contrast = prototype_contrast(query, memory, .07)
        grad, = torch.autograd.grad((contrast * weight).sum(), query)
        locations = F.normalize(query, dim=-1)
        feats = CLIPFeatures((query.transpose(1, 2)[..., None], ), None,
                             memory)
        return dict(
            contrast=contrast, grad=grad,
            score=prototype_score(query.detach(), memory),
            spread=cosine_spread(locations, memory),
            zero_shot=zero_shot_scores(feats, 'dense'))

    dense = found()
    # Against a loop over the softmax of each category.
    cosines = F.normalize(query, dim=-1) @ F.normalize(memory, dim=-1).T / .07
    loop = [[-cosines[b, c].log_softmax(-1)[c] for c in range(C)]
            for b in range(B)]
    torch.testing.assert_close(dense['contrast'],
                               torch.tensor(loop), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(class_blocks, 'MAX_SIMILARITIES', B * C * block)
    assert len(class_blocks.similarity_blocks(C, B * C)) == -(-C // block)
    for name, value in found().items():
        torch.testing.assert_close(value, dense[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('kind, options', [
    ('TextRegionMatchingHead', dict(scores='mean')),
    ('TextRegionMatchingHead', dict(relation_rank=2)),
    ('QueryDecoderHead', dict(self_attention=0, start='text')),
    ('QueryDecoderHead', dict(self_attention=2))])
def test_prediction_in_blocks_equals_that_at_once(monkeypatch, kind, options):
    head = make_head(type=f'trm_ml_mm.{kind}', prototypes=None, contrast=None,
                     pseudo_weight=0., **options).eval()
    feats = features(5)
    with torch.no_grad():
        scores, maps = head(feats), head.saliency(feats)
        first = head.calibration_logits(head.joint_features(feats))
        small_limits(monkeypatch)
        calls = []
        head.region.register_forward_pre_hook(
            lambda module, args: calls.append(len(args[1])))
        torch.testing.assert_close(head(feats), scores, atol=5e-6, rtol=0)
        torch.testing.assert_close(head.saliency(feats), maps, atol=1e-6,
                                   rtol=1e-6)
        torch.testing.assert_close(
            head.calibration_logits(head.joint_features(feats)), first,
            atol=5e-6, rtol=0)
    # Self-attention among the classes needs them all.
    whole = options.get('self_attention') == 2
    assert calls[:5] == ([C] * 3 if whole else [5, 5, 5, 5, 4])


NAMES = [' '.join(pair) for pair in itertools.product(
    ['red', 'blue', 'green', 'yellow'],
    ['circle', 'star', 'heart', 'ring', 'arrow', 'square'])]


@pytest.fixture(scope='module')
def clip():
    return load_clip('mini', None)


@pytest.mark.parametrize('specific', [False, True])
@pytest.mark.parametrize('pair', [False, True])
def test_only_sampled_classes_are_encoded(clip, specific, pair):
    """Features and gradients are those of encoding all and keeping some."""
    text = PromptedTextEncoder(
        NAMES, clip, residual=.3, align=True,
        prompt=dict(class_specific=specific, pair=pair)).train()
    for value in text.parameters():
        value.data.add_(.05 * torch.randn_like(value))
    classes = torch.tensor([1, 4, 5, 19])
    encoded = []
    tower = text.text_tower
    text.text_tower = lambda *call: encoded.append(len(call[2])) or tower(
        *call)
    text.text_mean()
    some = text(classes)
    assert encoded[-1] == 4
    whole = text()[:, classes]
    torch.testing.assert_close(some, whole, atol=1e-6, rtol=1e-6)
    weight = torch.randn_like(some)
    learned = list(text.parameters())
    ours, expected = (
        torch.autograd.grad((features * weight).sum(), learned)
        for features in (some, whole))
    for one, other in zip(ours, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    if specific:
        outside = [c for c in range(C) if c not in classes.tolist()]
        assert (ours[0][:, outside] == 0).all()


@torch.no_grad()
def test_text_is_encoded_in_blocks_without_gradients(clip, monkeypatch):
    text = PromptedTextEncoder(NAMES, clip).eval()
    whole, zero_shot = text(), text.zero_shot_text()
    small_limits(monkeypatch)
    again = PromptedTextEncoder(NAMES, clip).eval()
    torch.testing.assert_close(again(), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again.zero_shot_text(), zero_shot, atol=1e-6,
                               rtol=1e-6)
    assert again(torch.tensor([3, 9])).equal(again()[:, [3, 9]])


def test_a_sampled_step_of_a_model_learns_prompts_of_its_classes():
    """The whole classifier: text is asked for lazily, of the step's classes,
    and once of all to calibrate and to predict."""
    model = MODELS.build(dict(
        type='trm_ml_mm.CLIPClassifier',
        backbone=dict(type='trm_ml_mm.CLIPPromptBackbone', arch='mini',
                      classes=NAMES, image_size=96, align=True,
                      prompt=dict(class_specific=True)),
        head=dict(type='trm_ml_mm.TextRegionMatchingHead', loss=LOSS,
                  sampled_classes=9)))
    text = model.backbone.text
    encoded = []
    tower = text.text_tower
    text.text_tower = lambda *call: encoded.append(len(call[2])) or tower(
        *call)
    images, targets = torch.randn(B, 3, 96, 96), labels(1)
    model.train()
    model(images, samples(targets), mode='loss')
    encoded.clear()
    losses = model(images, samples(targets), mode='loss')
    assert encoded == [9]
    losses['loss_cls'].backward()
    moved = text.prompt.context.grad[0].abs().sum((1, 2)) > 0
    known = (targets != -1).any(0)
    assert torch.equal(moved, known)  # the others have no loss here
    model.eval()
    with torch.no_grad():
        assert model(images, mode='tensor').shape == (B, C)
    assert encoded == [9, C]


def test_relations_of_low_rank_equal_a_loop():
    relations = CategoryRelations(5, scale=2., rank=3)
    logits = torch.randn(2, 5, requires_grad=True)
    assert torch.equal(relations(logits), logits)  # the start
    relations(logits)[:, 0].sum().backward()
    assert relations.right.grad.abs().sum() > 0  # and it can leave it
    torch.nn.init.normal_(relations.right)
    for classes in (None, torch.tensor([0, 2, 3])):
        kept = range(5) if classes is None else classes.tolist()
        got = relations(logits[:, kept], classes)
        for b in range(2):
            for n, c in enumerate(kept):
                moved = sum(
                    logits[b, k].sigmoid()
                    * (relations.left[k] * relations.right[c]).sum()
                    for k in kept if k != c)
                assert got[b, n].item() == pytest.approx(
                    (logits[b, c] + 2 * moved).item(), abs=1e-5)
    logits.grad = None
    relations(logits)[:, 0].sum().backward()
    assert torch.equal(logits.grad[:, 0], torch.ones(2))
    assert (logits.grad[:, 1:] == 0).all()


@pytest.mark.parametrize('images, classes, length', [
    (1_000_000, 312, 4096), (9_000_000, 9605, 416), (9_000_000, 40_000, 256)])
def test_the_history_is_bounded(images, classes, length):
    assert prototypes_module.HISTORY_SCORES == 4_000_000
    memory = MultimodalPrototypes(classes, 4)
    memory.prepare(images)
    assert memory.history.shape == (2, length, classes)


@pytest.mark.parametrize('options, message', [
    (dict(sampled_classes=0), 'sampled_classes must be a positive number'),
    (dict(relation_rank=-1), 'relation_rank must be a positive number'),
    (dict(num_classes=2049),
     'Relations between 2049 classes are 4,198,401 learned values; .* set '
     'relation_rank=16 in the head, or relations=0'),
    (dict(type='trm_ml_mm.QueryDecoderHead', sampled_classes=5),
     'set self_attention=0')])
def test_bad_options_of_many_classes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_head(**options)


def test_many_classes_have_relations_of_low_rank_or_none():
    assert make_head(2048).relations.weight.shape == (2048, 2048)
    assert make_head(2049, relations=0.).relations.scale == 0
    assert make_head(2049, relation_rank=4).relations.left.shape == (2049, 4)
