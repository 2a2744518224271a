import pytest
import torch
import torch.nn.functional as F
from tests_support import ROOT

from trm_ml_mm.engine import load_config
from trm_ml_mm.models import MultimodalPrototypes as Prototypes
from trm_ml_mm.models import prototypes
from trm_ml_mm.models.label_statistics import LabelCounts, LabelStatistics
from trm_ml_mm.models.prototypes import prototype_score, pseudo_label_thresholds


class Memory(Prototypes):
    """Prototypes that count the labels they see, as the head does for them."""

    def __init__(self, num_classes, dim, images=2048, **options):
        super().__init__(num_classes, dim, **options)
        self.statistics = LabelStatistics(num_classes)
        if images:
            self.prepare(images)

    def forward(self, *features_and_targets):
        batch = self.statistics.update(features_and_targets[-1])
        return super().forward(*features_and_targets, batch.positives,
                               self.statistics.counts.prior(),
                               self.statistics.seen)


def test_score_equals_a_loop():
    features, prototypes = torch.randn(3, 4, 8), torch.randn(4, 8)
    got = prototype_score(features, prototypes, .5)
    for b in range(3):
        for c in range(4):
            cos = [F.cosine_similarity(features[b, c], p, dim=0).item()
                   for p in prototypes]
            others = max(v for k, v in enumerate(cos) if k != c)
            assert got[b, c].item() == pytest.approx(cos[c] - .5 * others,
                                                     abs=1e-5)


def history_with_gaps():
    history = torch.randn(200, 3)
    history[torch.rand(200, 3) < .3] = float('nan')
    return history


def test_negatives_are_the_lowest_scores_of_each_class():
    history, prior = history_with_gaps(), torch.tensor([.2, .5, .998])
    labels = torch.full_like(history, -1)
    lower, upper = pseudo_label_thresholds(history, labels, prior, .5, .5)
    for c in range(3):
        values = history[:, c][~history[:, c].isnan()]
        negatives = int(len(values) * (1 - prior[c]) * .5)
        assert (values <= lower[c]).sum() == negatives
    assert lower[2].isnan()  # less than one negative expected: none
    assert upper.isnan().all()  # no known positive


def test_the_positive_threshold_is_what_a_ratio_of_known_positives_reaches():
    scores, labels = history_with_gaps(), torch.ones(200, 3)
    labels[torch.rand(200, 3) < .5] = -1
    scores[:, 0] += 1  # the easy class
    known = torch.where(labels == 1, scores, float('nan'))
    prior = torch.full((3,), .5)
    upper = pseudo_label_thresholds(scores, labels, prior, .6, .5, .9).upper
    count = (~known.isnan()).sum()
    assert len(set(upper.tolist())) == 1
    assert (known >= upper).sum() == int(count * .6)
    reached = (known >= upper).sum(0)
    assert reached[0] > reached[1]
    assert (scores >= upper).sum() > (known >= upper).sum()  # others reach it
    # Empty rows of the history have neither score nor label.
    empty = torch.full((9, 3), float('nan'))
    assert pseudo_label_thresholds(torch.cat([empty, scores]), torch.cat(
        [empty, labels]), prior, .6, .5, .9).upper.equal(upper)
    nothing = pseudo_label_thresholds(empty, empty, prior, .6, .5)
    assert nothing.upper.isnan().all()


@pytest.mark.parametrize('noise', [.1, 1., 3.])
def test_the_positive_threshold_has_the_precision(noise):
    """Against a loop over all candidates."""
    labels = (torch.rand(300, 4) < .2).float()
    scores = labels + noise * torch.randn(300, 4)
    labels[torch.rand(300, 4) < .5] = -1
    upper = pseudo_label_thresholds(scores, labels, torch.full((4,), .2), .7,
                                    .5, .8).upper[0].item()
    positives = (labels == 1).sum().item()
    candidates = []
    for t in scores[labels == 1].tolist():
        reached = scores >= t
        found = (reached & (labels == 1)).sum().item()
        wrong = (reached & (labels == 0)).sum().item()
        if found <= int(positives * .7) and found / (found + wrong) >= .8:
            candidates.append(t)
    assert upper == pytest.approx(min(candidates))
    ratio = pseudo_label_thresholds(scores, labels, torch.full((4,), .2), .7,
                                    .5).upper[0].item()
    assert (upper > ratio) == (noise > .5)  # it matters to a weak classifier


def test_a_class_that_the_common_threshold_leaves_out_gets_its_best_scores():
    scores, labels = torch.randn(400, 3), torch.full((400, 3), -1.)
    labels[:200, 0] = 1
    scores[:, 0] += 5
    prior = torch.tensor([.5, .25, .25])
    upper = pseudo_label_thresholds(scores, labels, prior, .6, .5,
                                    class_ratio=.4).upper
    without = pseudo_label_thresholds(scores, labels, prior, .6, .5).upper
    assert (scores[:, 1:] >= without[1:]).sum() == 0
    for c in (1, 2):  # 0.4 of the 100 that are expected
        assert (scores[:, c] >= upper[c]).sum() == 40
    assert upper[0] == without[0]  # enough reach it


def test_questions_do_not_make_more_positives_of_own_tables():
    """Asked where a model is unsure, people say "present" to every second
    label. The share of positives among known labels is then wrong."""
    truth = (torch.rand(2000, 2) < .1).float()
    scores = 3 * truth + torch.randn(2000, 2)
    labels = torch.where(torch.rand(2000, 2) < .1, truth, -1.)
    unsure = (scores[:, 0] - 2.2).abs().argsort()[:200]
    labels[unsure, 0] = truth[unsure, 0]
    prior = LabelCounts.of(labels).prior()
    assert prior[0] > 2 * prior[1]
    wrong = {}
    for config in ('trm_ml_csv.py', 'trm_ml_scenes.py'):
        options = load_config(str(ROOT / 'configs' / config)
                              ).model.head.prototypes
        upper = pseudo_label_thresholds(
            scores, labels, prior, .2, .75, .8,
            options.get('class_ratio', .4)).upper
        new = (labels[:, 0] == -1) & (scores[:, 0] >= upper[0])
        wrong[config] = (truth[new, 0] == 0).float().mean()
    assert wrong['trm_ml_csv.py'] < .05 < .3 < wrong['trm_ml_scenes.py']


def test_positives_are_found_at_the_ratio_although_the_prior_is_not_known():
    """Single positive labels: a third of the positives, no negative."""
    memory = Memory(4, 8, scale=0., warmup_images=0, positive_ratio=.6)
    found = present = 0
    for step in range(40):
        truth = (torch.rand(64, 4) < .4).float()
        logits = 2 * truth + .3 * torch.randn(64, 4)
        targets = torch.where((torch.rand(64, 4) < .3) & (truth == 1), 1., -1.)
        pseudo = memory(*torch.randn(2, 64, 4, 8), torch.randn(4, 8), logits,
                        targets)
        if step > 10:
            hidden = (targets == -1) & (truth == 1)
            found += (pseudo[hidden] == 1).sum().item()
            present += hidden.sum().item()
            assert (truth[pseudo == 1] == 1).all()
    assert found / present == pytest.approx(.6, abs=.05)


def test_one_label_makes_a_threshold_too():
    labels = torch.full((4, 2), -1.)
    scores = torch.tensor([[3., 1.], [2., 4.], [5., 2.], [4., 3.]])
    # Of 4 unknown labels 3 are negative, a third of which is one label; one
    # is positive.
    lower, upper = pseudo_label_thresholds(
        scores, labels, torch.full((2,), .25), .5, 1 / 3, class_ratio=1.)
    assert lower.tolist() == [2, 1] and upper.tolist() == [5, 4]
    # All are known positives: half of them reach the threshold.
    upper = pseudo_label_thresholds(
        torch.arange(8.).view(4, 2), torch.ones(4, 2), torch.full((2,), .5),
        .5, .5).upper
    assert upper.tolist() == [4, 4]


def test_prototypes_are_added_to_the_matching_logit():
    memory = Memory(4, 8, scale=3., modalities=['text'], levels=['query'],
                    inter_class=.2)
    query, region = torch.randn(2, 5, 4, 8)
    text, logits = torch.randn(4, 8), torch.randn(5, 4)
    for unit in (1., .25):
        expected = logits + 3 / unit * prototype_score(query, text, .2)
        assert torch.allclose(
            memory.scores(query, region, text, logits, unit), expected)


def test_one_positive_is_its_class_prototype():
    """Seen after a batch without one; what is not finite counts as zero."""
    memory, text = Memory(3, 8), torch.randn(3, 8)
    query, targets = torch.randn(6, 3, 8), torch.full((6, 3), -1.)
    memory(query, query, text, torch.randn(6, 3), targets)
    assert torch.equal(memory.visual_prototypes(text), text)
    targets[0, 0] = targets[1, 1] = targets[2, 1] = 1
    query[2] = float('nan')
    memory(query, torch.randn(6, 3, 8), text, torch.randn(6, 3), targets)
    expected = torch.stack([F.normalize(query[0, 0], dim=0),
                            F.normalize(query[1, 1], dim=0) / 2, text[2]])
    assert torch.allclose(memory.visual_prototypes(text), expected)


@pytest.mark.parametrize('last', [4, 3])
def test_ranks_fill_the_history_as_one_rank_would(monkeypatch, last):
    """One process stands for both ranks; tests/ranks.py runs real ones. The
    second one may have a smaller batch."""
    rows = torch.randn(2, 4 + last, 3)
    other = torch.full((2, 4, 3), float('nan'))
    other[:, :last] = rows[:, 1::2]
    one, two = Prototypes(3, 8), Prototypes(3, 8)
    one.prepare(300)
    two.prepare(300, batch_size=4)
    one._push(rows)
    monkeypatch.setattr(prototypes, 'get_world_size', lambda: 2)
    monkeypatch.setattr(prototypes, 'all_gather', lambda own: [own, other])
    two._push(rows[:, 0::2])
    assert torch.equal(one.history.nan_to_num(9), two.history.nan_to_num(9))
    assert torch.equal(one.history[:, -4 - last:], rows)
    # The other way round: this rank has the smaller batch.
    monkeypatch.setattr(prototypes, 'all_gather',
                        lambda own: [rows[:, 0::2], own])
    two._push(rows[:, 1::2])
    assert torch.equal(two.history[:, -4 - last:], rows)


def test_sums_of_all_ranks_enter_the_prototypes(monkeypatch):
    def add(sums):
        sums += torch.eye(3, 8)

    monkeypatch.setattr(prototypes, 'all_reduce', add)
    memory, query = Prototypes(3, 8), torch.randn(2, 3, 8)
    memory._update_visual(query, torch.ones(2, 3), torch.full((3,), 3.))
    expected = (F.normalize(query, dim=-1).sum(0) + torch.eye(3, 8)) / 3
    assert torch.allclose(memory.visual, expected)


def known_positives(steps, seen, mean=0., noise=1.):
    """Batches; all known positives of each class are added to ``seen``."""
    for _ in range(steps):
        query = mean + noise * torch.randn(6, 3, 8)
        targets = torch.randint(-1, 2, (6, 3)).float()
        targets[:, 2] = -1  # never known
        for c in range(3):
            known = F.normalize(query, dim=-1)[targets[:, c] == 1, c]
            seen[c] = torch.cat([seen[c], known])
        yield query, targets


def test_visual_prototypes_are_means_of_known_positives():
    memory = Memory(3, 8, warmup_images=0)
    text, seen = torch.randn(3, 8), [torch.zeros(0, 8) for _ in range(3)]
    for query, targets in known_positives(4, seen):
        memory(query, torch.randn(6, 3, 8), text, torch.randn(6, 3), targets)
    expected = torch.stack([seen[0].mean(0), seen[1].mean(0), text[2]])
    assert torch.allclose(memory.visual_prototypes(text), expected, atol=1e-6)


def test_a_full_memory_forgets_old_positives():
    """Ten times as many positives as it holds, the second half elsewhere."""
    memory, text = Memory(3, 8, memory=20), torch.zeros(3, 8)
    seen = [torch.zeros(0, 8) for _ in range(3)]
    one, other = torch.eye(8)[:2]
    for mean in (one, other):
        for query, targets in known_positives(50, seen, mean, .01):
            memory(query, query, text, torch.randn(6, 3), targets)
    assert torch.allclose(memory.visual[:2], other.expand(2, 8), atol=.05)


def test_the_order_of_a_batch_does_not_matter():
    """Pseudo-labels move with their images; what is remembered stays. Images
    that leave the history are the oldest, so their order counts there: the
    last batch is as long as the history is."""
    torch.manual_seed(3)
    one, other = (Memory(5, 8, images=256, warmup_images=0) for _ in range(2))
    text, order = torch.randn(5, 8), torch.randperm(256)
    for _ in range(3):
        query, region = torch.randn(2, 256, 5, 8)
        logits = torch.randn(256, 5)
        targets = torch.randint(-1, 2, (256, 5)).float()
        pseudo = one(query, region, text, logits, targets)
        moved = other(query[order], region[order], text, logits[order],
                      targets[order])
        assert torch.equal(moved, pseudo[order]) and (pseudo != -1).any()
        assert torch.equal(one.visual_count, other.visual_count)
        assert torch.allclose(one.visual, other.visual, atol=1e-6)


@pytest.mark.parametrize('images, length', [
    (100, 256), (2000, 500), (5000, 1250), (1_000_000, 4096)])
def test_the_history_is_a_share_of_the_training_set(images, length):
    memory = Memory(3, 8, images=images)
    assert memory.history.shape == (2, length, 3)
    assert memory.warmup_images == images
    twin = Memory(3, 8, images=None)
    twin.load_state_dict(memory.state_dict())
    assert twin.history.shape == (2, length, 3)


def test_known_labels_are_never_overwritten():
    memory = Memory(5, 8, warmup_images=0, positive_ratio=1.,
                    negative_ratio=1., min_precision=0.)
    text = torch.randn(5, 8)
    for _ in range(4):
        query, region = torch.randn(2, 32, 5, 8)
        targets = torch.randint(-1, 2, (32, 5)).float()
        pseudo = memory(query, region, text, torch.randn(32, 5), targets)
        assert (pseudo[targets != -1] == -1).all()
    made = pseudo[targets == -1]
    assert (made == 1).any() and (made == 0).any()


def test_nothing_is_estimated_before_the_warm_up():
    memory = Memory(5, 8, warmup_images=64)
    for step in range(4):
        query, region = torch.randn(2, 32, 5, 8)
        targets = torch.randint(-1, 2, (32, 5)).float()
        pseudo = memory(query, region, torch.randn(5, 8),
                        torch.randn(32, 5), targets)
        assert (pseudo == -1).all() == (step < 2)


def test_clear_scores_give_right_labels():
    """Features near the own prototype where present: found without error."""
    prototypes = F.normalize(torch.randn(4, 16), dim=-1)
    memory = Memory(4, 16, warmup_images=0)
    right = wrong = 0
    for step in range(20):
        truth = (torch.rand(64, 4) < .3).float()
        features = torch.where(truth[..., None] == 1, prototypes,
                               torch.roll(prototypes, 1, 0))
        features = features + .1 * torch.randn(64, 4, 16)
        known = torch.rand(64, 4) < .2
        targets = torch.where(known, truth, -1.)
        pseudo = memory(features, features, prototypes,
                        torch.zeros(64, 4), targets)
        if step > 10:
            right += (pseudo[pseudo != -1] == truth[pseudo != -1]).sum()
            wrong += (pseudo[pseudo != -1] != truth[pseudo != -1]).sum()
    assert right > 500 and wrong == 0


@pytest.mark.parametrize('options, message', [
    (dict(modalities=['audio']),
     r"^modalities must be 'visual', 'text' or both, got \['audio'\]"),
    (dict(levels=[]), r"^levels must be 'query', 'region' or both, got \[\]"),
    (dict(positive_ratio=1.5), 'positive_ratio'),
    (dict(negative_ratio=-1), 'negative_ratio'),
    (dict(min_precision=2), 'min_precision'),
    (dict(class_ratio=2), 'class_ratio'), (dict(history=512), 'history'),
    (dict(scale=-1), 'scale'), (dict(memory=0), 'memory')])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Memory(3, 4, **options)


def test_a_state_without_a_history_leaves_it():
    memory = Memory(3, 8, images=300)
    found = memory.load_state_dict(dict(visual=torch.ones(3, 8)), strict=False)
    assert 'history' in found.missing_keys and (memory.visual == 1).all()
    assert memory.history.shape == (2, 256, 3)


def test_an_unknown_training_set_is_refused():
    with pytest.raises(ValueError, match='size of the training set'):
        Memory(3, 4, images=None)(
            *torch.randn(2, 2, 3, 4), torch.randn(3, 4), torch.zeros(2, 3),
            torch.ones(2, 3))
