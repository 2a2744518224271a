import pytest
import torch

from trm_ml_mm.models.label_statistics import LabelStatistics


def test_counts_equal_a_loop():
    statistics = LabelStatistics(4)
    expected = torch.zeros(2, 4, dtype=torch.long)
    for _ in range(3):
        targets = torch.randint(-1, 2, (5, 4)).float()
        own = torch.zeros(2, 4, dtype=torch.long)
        for row in targets.tolist():
            for c, value in enumerate(row):
                if value != -1:
                    own[int(value), c] += 1
        expected += own
        batch = statistics.update(targets)
        assert torch.equal(torch.stack(batch[:2]), own)
        assert batch.images == 5
    assert torch.equal(torch.stack(statistics.counts[:2]), expected)
    assert statistics.counts.images == 15


def test_prior_is_the_ratio_of_known_positives():
    statistics = LabelStatistics(3)
    statistics.update(torch.tensor(
        [[1., 1, 0], [0, 1, -1], [0, -1, -1], [0, -1, -1]]))
    # Class 1 has no known negative: positives over images. The mean is 3 of 9:
    # a class gets one positive more, of three labels.
    assert statistics.counts.prior().tolist() == pytest.approx(
        [(1 + 1) / (4 + 3), (2 + 1) / (4 + 3), 1 / (1 + 3)])


def test_the_prior_of_a_class_without_a_known_positive_is_above_zero():
    labels = torch.zeros(1000, 3)
    labels[:100, 0] = 1
    labels[20:, 1] = -1  # 20 known labels, all negative
    statistics = LabelStatistics(3)
    statistics.set_training_labels(labels)
    first, few, many = statistics.counts.prior().tolist()
    assert first == pytest.approx(.1, abs=1e-3)  # what is known decides
    assert .01 < few < 100 / 2020  # next to nothing is known: below the mean
    assert many < .001  # 1,000 negatives say that the class is rare
    statistics.set_training_labels(torch.full((10, 3), -1))
    assert statistics.counts.prior().tolist() == [0, 0, 0]


def test_a_stray_negative_does_not_turn_tags_into_labels():
    statistics = LabelStatistics(2)
    targets = torch.full((100, 2), -1.)
    targets[:20] = 1
    targets[20, 0] = 0
    statistics.update(targets)
    assert statistics.counts.prior().tolist() == pytest.approx([.2, .2])
    assert not statistics.counts.negatives_are_labelled().any()
    targets[20:22, 0] = 0  # with the one before, three to forty
    statistics.update(targets)
    assert statistics.counts.prior()[0] == pytest.approx(.2)
    statistics.update(targets.clamp(max=0))
    assert statistics.counts.prior()[0] == pytest.approx(
        (40 + 1) / (40 + 25 + 125 / 80))


def test_decisions_are_those_of_the_whole_label_matrix():
    """1% known: a class's first batches have no known negative by chance."""
    labels = torch.full((400, 2), -1)
    labels[300:, 0] = 0
    labels[:10, 0] = 1
    statistics = LabelStatistics(2)
    statistics.set_training_labels(labels)
    statistics.update(labels[:50])
    assert statistics.counts.negatives_are_labelled().tolist() == [True, False]
    assert statistics.counts.prior()[0] == pytest.approx(
        (10 + 1) / (110 + 510 / 10))
    assert statistics.seen == 50
    with pytest.raises(ValueError, match='of 2 classes .* num_classes=3'):
        LabelStatistics(3).set_training_labels(labels)


def test_counts_are_part_of_the_checkpoint():
    statistics, twin = LabelStatistics(3), LabelStatistics(3)
    statistics.update(torch.randint(-1, 2, (50, 3)).float())
    twin.load_state_dict(statistics.state_dict())
    for a, b in zip(statistics.counts, twin.counts):
        assert torch.equal(a, b)
    assert twin.seen == 50
