"""Metrics over labels that are really missing: equal to plain loops, in memory,
on the disk, and over ranks."""
import tempfile

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from trm_ml_mm.evaluation import (
    AttributeMetrics,
    MultiLabelAP,
    MultiLabelAUROC,
    MultiLabelF1,
    auroc,
    entries,
)
from trm_ml_mm.evaluation.metrics import (
    in_data_order,
    nearly_equal,
    rows_to_keep,
)
from trm_ml_mm.evaluation.per_class import class_list_hash, scored_classes

NAMES = [f'class {c}' for c in range(9)]
GROUPS = dict(head=['class 0', 'class 1'], tail=[4, 5, 6, 7])


def drawn(seed, images=60, known=.4):
    """Logits with ties, labels; class 7 has no positive, 8 no negative."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-6, 7, (images, 9)) / 2
    labels = np.where(rng.random((images, 9)) < known,
                      rng.integers(0, 2, (images, 9)), -1)
    labels[:, 7] = np.where(labels[:, 7] == 1, 0, labels[:, 7])
    labels[:, 8] = np.where(labels[:, 8] == 0, 1, labels[:, 8])
    return logits.astype(np.float32), labels


def feed(metric, logits, labels, batch=16):
    metric.dataset_meta = dict(classes=NAMES, groups=GROUPS)
    for start in range(0, len(logits), batch):
        rows = torch.from_numpy(logits[start:start + batch])
        metric.process(None, [
            dict(pred_score=row.sigmoid(), pred_logit=row,
                 gt_score=torch.from_numpy(label).float())
            for row, label in zip(rows, labels[start:start + batch])])
    return metric


def ap_by_loop(logits, labels, needs_negative):
    """Class by class over its known images."""
    values = {}
    for c in range(9):
        known = labels[:, c] != -1
        positive = labels[known, c] == 1
        if positive.any() and (not needs_negative or not positive.all()):
            values[c] = average_precision_score(positive, logits[known, c])
    return values


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('rule', ['positive', 'both'])
@pytest.mark.parametrize('max_memory', [0, 10**9])
def test_partial_ap_equals_a_loop(seed, rule, max_memory, monkeypatch):
    """CSL's rule is 'both'."""
    monkeypatch.setattr(entries, 'PIECE', 50)
    monkeypatch.setattr(entries, 'BLOCK', 60)
    logits, labels = drawn(seed)
    metric = feed(MultiLabelAP(scored=rule, max_memory=max_memory), logits,
                  labels)
    values = metric.evaluate(60)
    expected = ap_by_loop(logits, labels, rule == 'both')
    assert set(expected) == set(range(7 if rule == 'both' else 9)) - (
        {7} if rule == 'positive' else set())
    assert values['multi-label/mAP'] == pytest.approx(
        100 * np.mean(list(expected.values())))
    for group, members in (('head', [0, 1]), ('tail', [4, 5, 6])):
        assert values[f'multi-label/mAP_{group}'] == pytest.approx(
            100 * np.mean([expected[c] for c in members]))
    scored = scored_classes([metric])
    assert scored.count == len(expected) and scored.among == 9
    assert scored.class_list == class_list_hash(
        [NAMES[c] for c in sorted(expected)])
    assert metric.per_class.known.tolist() == (labels != -1).sum(0).tolist()
    assert metric.per_class.positives.tolist() == (labels == 1).sum(0).tolist()


def test_the_disk_changes_nothing_and_is_left_clean(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    logits, labels = drawn(1, 200)
    monkeypatch.setattr(entries, 'PIECE', 64)
    monkeypatch.setattr(entries, 'BLOCK', 32)
    labels[:48] = -1  # batches without a known label
    in_memory = feed(MultiLabelAP(), logits, labels).evaluate(200)
    metric = feed(MultiLabelAP(max_memory=0), logits, labels)
    assert all(isinstance(piece, entries.StoredEntries)
               for piece in metric.entries.pieces)
    stored, held = (sum(len(own.classes(0, 9).scores) for own in pieces)
                    for pieces in (metric.entries.pieces,
                                   metric.entries.fresh))
    assert stored > 4 * held
    assert stored + held == (labels[:192] != -1).sum()  # a batch is held back
    # Not even now does the file have a name: a kill leaves nothing.
    assert list(tmp_path.iterdir()) == []
    file = metric.entries.file
    assert metric.evaluate(200) == in_memory
    assert file.closed and metric.entries.file is None
    # A second evaluation starts anew.
    assert feed(metric, logits, labels).evaluate(200) == in_memory


@pytest.mark.parametrize('seed', range(5))
def test_auroc_equals_sklearn(seed):
    logits, labels = drawn(seed)
    metric = feed(MultiLabelAUROC(classes=NAMES[2:5]), logits, labels)
    values = metric.evaluate(60)
    expected = []
    for c in range(7):
        known = labels[:, c] != -1
        expected.append(roc_auc_score(labels[known, c], logits[known, c]))
    assert metric.per_class_auroc[:7].tolist() == pytest.approx(expected)
    assert metric.per_class_auroc[7:].isnan().all()
    assert values['multi-label/AUROC'] == pytest.approx(
        100 * np.mean(expected[2:5]))
    assert values['multi-label/AUROC_class 3'] == pytest.approx(
        100 * expected[3])
    whole = feed(MultiLabelAUROC(), logits, labels).evaluate(60)
    assert whole == {'multi-label/AUROC': pytest.approx(
        100 * np.mean(expected))}
    with pytest.raises(ValueError, match='averages the class "lung"'):
        feed(MultiLabelAUROC(classes=['lung']), logits, labels).evaluate(60)


def attributes_by_loop(logits, labels, members, topk):
    """Label by label, as the published evaluator's description says."""
    recalls, accuracies, tp, fp, fn = [], [], 0, 0, 0
    for c in members:
        hits = positives = above = true_negatives = negatives = 0
        for row, label in zip(logits, labels[:, c]):
            best = c in np.argsort(-row, kind='stable')[:topk]
            score = 1 / (1 + np.exp(-np.float64(row[c])))
            if label == 1:
                positives += 1
                hits += best
                above += score > .5
                fn += not best
            elif label == 0:
                negatives += 1
                fp += best
                true_negatives += score <= .5
        tp += hits
        if positives:
            recalls.append(hits / positives)
        if positives and negatives:
            accuracies.append((above / positives
                               + true_negatives / negatives) / 2)
    return (np.mean(recalls), 2 * tp / (2 * tp + fp + fn),
            np.mean(accuracies))


@pytest.mark.parametrize('seed', range(5))
def test_attribute_metrics_equal_a_loop(seed):
    _, labels = drawn(seed)
    # No ties: the published rule does not say which of them is among the best.
    logits = np.random.default_rng(seed).normal(size=labels.shape).astype(
        np.float32)
    logits[0, 0] = 0  # a score of just 0.5 is not above it
    labels[0, 0] = 1
    values = feed(AttributeMetrics(topk=3), logits, labels).evaluate(60)
    for suffix, members in (('', range(9)), ('_head', [0, 1]),
                            ('_tail', [4, 5, 6, 7])):
        expected = attributes_by_loop(logits, labels, members, 3)
        assert [values[f'multi-label/{name}{suffix}'] for name in (
            'mR@3', 'F1@3', 'mA')] == pytest.approx(
                [100 * value for value in expected])


@pytest.mark.parametrize('count', [1, 2, 3])
def test_padding_of_any_rank_is_cut(count):
    """The sampler deals images out in turn and repeats the first ones."""
    size = 7
    padded = [i % size for i in range(-(-size // count) * count)]
    ranks = [padded[rank::count] for rank in range(count)]
    counts = [len(rank) for rank in ranks]
    kept = [torch.tensor(own[:rows_to_keep(counts, rank, size)])
            for rank, own in enumerate(ranks)]
    assert in_data_order(kept).tolist() == list(range(size))
    # A sampler that gives one part after the other does not pad.
    assert [rows_to_keep([4, 2], rank, 6) for rank in range(2)] == [4, 2]


def test_more_padding_than_a_batch_is_refused():
    logits, labels = drawn(4)
    with pytest.raises(ValueError, match='20 images beyond the data set, more '
                       'than a batch of 12: take DefaultSampler'):
        feed(MultiLabelAP(), logits, labels).evaluate(40)


def test_scores_that_diverged_are_refused():
    logits, labels = drawn(5)
    logits[3, 2] = np.nan
    for metric in (MultiLabelAP(), MultiLabelAUROC()):
        with pytest.raises(ValueError, match='the model diverged'):
            feed(metric, logits, labels).evaluate(60)
    for metric in (MultiLabelF1(), AttributeMetrics()):
        with pytest.raises(ValueError, match='the model diverged'):
            feed(metric, logits, labels)


def test_nothing_stays_on_the_disk_after_an_error(monkeypatch):
    monkeypatch.setattr(entries, 'PIECE', 64)
    logits, labels = drawn(6, 100)
    logits[0, 0] = np.inf
    metric = feed(MultiLabelAP(max_memory=0), logits, labels)
    file = metric.entries.file
    assert not file.closed
    with pytest.raises(ValueError, match='diverged'):
        metric.evaluate(100)
    assert file.closed


def test_a_full_disk_says_what_to_do(monkeypatch):
    resource = pytest.importorskip('resource')  # not on Windows
    monkeypatch.setattr(entries, 'PIECE', 64)
    logits, labels = drawn(7, 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match='do not fit into .*: set TMPDIR to '
                           'a folder with more room'):
            feed(MultiLabelAP(max_memory=0), logits, labels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('member', ['class 9', 9, -1, 1.])
def test_groups_of_other_classes_are_refused(member):
    for metric in (MultiLabelAP(), AttributeMetrics()):
        feed(metric, *drawn(8))
        metric.dataset_meta = dict(classes=NAMES, groups=dict(tail=[member]))
        with pytest.raises(ValueError, match=f'"tail" of the data set has the '
                           f'class {member!r}, which is none of its 9'):
            metric.evaluate(60)


def test_the_class_list_does_not_depend_on_the_order_of_classes():
    logits, labels = drawn(9)
    order = np.random.default_rng(9).permutation(9)
    found = []
    for columns in (np.arange(9), order):
        metric = feed(MultiLabelAP(scored='both'), logits[:, columns],
                      labels[:, columns])
        metric.dataset_meta = dict(classes=[NAMES[c] for c in columns])
        metric.evaluate(60)
        found.append(scored_classes([metric]))
    assert found[0] == found[1] and found[0].partial
    assert found[0].class_list != class_list_hash(NAMES)


def test_auroc_says_which_classes_are_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(auroc, 'print_log',
                        lambda text, **_: said.append(text))
    feed(MultiLabelAUROC(classes=NAMES[5:]), *drawn(10)).evaluate(60)
    assert len(said) == 1 and said[0].startswith('2 of 4 classes')
    feed(MultiLabelAUROC(classes=NAMES[:5]), *drawn(10)).evaluate(60)
    assert len(said) == 1


@pytest.mark.parametrize('gap', [0., 9e-4, 1.1e-3, 2e-3, np.nan])
@pytest.mark.parametrize('size', [0., 100., np.inf, np.nan])
def test_nearly_equal_is_allclose(gap, size):
    values = torch.tensor([1., size + gap])
    others = torch.tensor([1., size])
    assert nearly_equal(values, others) == torch.allclose(
        values, others, atol=1e-3, equal_nan=True)
