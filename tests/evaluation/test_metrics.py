import csv
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_average_precision

from trm_ml_mm.evaluation import (
    MultiLabelAP,
    MultiLabelF1,
    average_precision,
    mean_over_classes,
    metrics,
    precision_recall,
    predict,
)
from trm_ml_mm.evaluation.functional import _count_at_least
from trm_ml_mm.evaluation.metrics import PerClass, in_data_order
from trm_ml_mm.evaluation.per_class import (
    find_per_class,
    per_class_rows,
    per_class_table,
    write_per_class,
)


@st.composite
def scored_labels(draw):
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 5)))
    # Few distinct values: many ties.
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(
        [-3., -1., -.5, 0., .25, .5, 2., 7.])))
    targets = draw(hnp.arrays(np.int64, shape,
                              elements=st.sampled_from([1, 0, -1])))
    return scores, targets


def loop_interpolated_ap(scores, targets):
    """VOC 2012: largest precision at any recall not smaller."""
    known = targets != -1
    scores, positive = scores[known], targets[known] == 1
    points = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = (chosen & positive).sum()
        points.append((hits / positive.sum(), hits / chosen.sum()))
    area, recall_before = 0., 0.
    for i, (recall, _) in enumerate(points):
        best = max(p for _, p in points[i:])
        area += (recall - recall_before) * best
        recall_before = recall
    return area


@settings(max_examples=150, deadline=None)
@given(scored_labels())
def test_average_precision_equals_sklearn_and_torchmetrics(case):
    scores, targets = case
    ours = average_precision(torch.tensor(scores), torch.tensor(targets))
    for c in range(scores.shape[1]):
        known = targets[:, c] != -1
        if not (targets[:, c] == 1).any():
            assert torch.isnan(ours[c])
            continue
        expected = average_precision_score(targets[known, c],
                                           scores[known, c])
        assert abs(ours[c].item() - expected) < 1e-6
        theirs = binary_average_precision(
            torch.tensor(scores[:, c]).double().sigmoid(),
            torch.tensor(targets[:, c]), ignore_index=-1)
        assert abs(ours[c].item() - theirs.item()) < 1e-6


@settings(max_examples=100, deadline=None)
@given(scored_labels())
def test_interpolated_average_precision_equals_a_loop(case):
    scores, targets = case
    ours = average_precision(torch.tensor(scores), torch.tensor(targets), True)
    plain = average_precision(torch.tensor(scores), torch.tensor(targets))
    for c in range(scores.shape[1]):
        if (targets[:, c] == 1).any():
            expected = loop_interpolated_ap(scores[:, c], targets[:, c])
            assert abs(ours[c].item() - expected) < 1e-6
            assert ours[c] >= plain[c] - 1e-12
        else:
            assert torch.isnan(ours[c])


@settings(max_examples=100, deadline=None)
@given(scored_labels(), st.booleans())
def test_precision_recall_equal_a_loop(case, with_topk):
    scores, targets = case
    predicted = predict(
        torch.tensor(scores), 0., topk=2 if with_topk else None).numpy()
    got = precision_recall(torch.tensor(predicted), torch.tensor(targets))
    cps, crs, f1s, hits, claims, truths = [], [], [], 0, 0, 0
    for c in range(scores.shape[1]):
        known, positive = targets[:, c] != -1, targets[:, c] == 1
        h = (predicted[:, c] & positive).sum()
        n = (predicted[:, c] & known).sum()
        m = positive.sum()
        hits, claims, truths = hits + h, claims + n, truths + m
        if m:
            cps.append(h / n if n else 0.)
            crs.append(h / m)
            f1s.append(2 * h / (n + m))
    if not cps:
        assert torch.isnan(got.CP)
        return
    cp, cr = np.mean(cps), np.mean(crs)
    op, recall = hits / max(claims, 1), hits / truths
    expected = dict(
        CP=cp, CR=cr, CF1=2 * cp * cr / (cp + cr) if cp + cr else 0.,
        OP=op, OR=recall,
        OF1=2 * op * recall / (op + recall) if op + recall else 0.,
        CF1_mean=np.mean(f1s))
    for name, value in expected.items():
        assert abs(float(getattr(got, name)) - value) < 1e-9, name


def test_hand_computed_case():
    # Ranking: positive, negative, positive. AP = (1/1 + 2/3) / 2.
    scores = torch.tensor([[3.], [2.], [1.]])
    targets = torch.tensor([[1], [0], [1]])
    assert average_precision(scores, targets).item() == pytest.approx(5 / 6)
    # The negative becomes unknown: a perfect ranking.
    targets = torch.tensor([[1], [-1], [1]])
    assert average_precision(scores, targets).item() == 1


def test_topk_rules():
    scores = torch.tensor([[.9, .6, .4, .1]])
    assert predict(scores, topk=3).tolist() == [[True, True, True, False]]
    both = predict(scores, threshold=.5, topk=3)
    assert both.tolist() == [[True, True, False, False]]
    assert predict(scores, .6).tolist() == both.tolist()  # reached


def test_classes_without_positives_are_skipped_or_zero():
    values = torch.tensor([.5, float('nan')])
    assert mean_over_classes(values, 'skip') == .5
    assert mean_over_classes(values, 'zero') == .25
    assert mean_over_classes(values) == .5
    one, none = torch.tensor([[True, True]]), torch.tensor([[1, 0]])
    assert precision_recall(one, none).CR == 1
    assert precision_recall(one, none, 'zero').CR == .5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r'^scores and targets must both be '
                       r'\(N, C\), got'):
        average_precision(torch.rand(3, 2), torch.ones(3, 3))
    with pytest.raises(ValueError, match='diverged'):
        average_precision(torch.tensor([[float('nan')]]), torch.ones(1, 1))
    with pytest.raises(ValueError, match='empty'):
        MultiLabelAP(empty='ignore')


def samples(logits, targets):
    return [
        dict(pred_score=row.sigmoid(), pred_logit=row, gt_score=target)
        for row, target in zip(logits, targets)
    ]


def test_registered_metrics_are_percent_and_ignore_unknown():
    logits = torch.randn(40, 6)
    targets = torch.randint(-1, 2, (40, 6)).float()
    ap, f1 = MultiLabelAP(), MultiLabelF1(topk=3)
    for metric in (ap, f1):
        for part in range(0, 40, 16):
            metric.process(None, samples(logits[part:part + 16],
                                         targets[part:part + 16]))
    values = {**ap.evaluate(40), **f1.evaluate(40)}
    expected = 100 * np.mean([
        average_precision_score((targets[:, c] == 1)[targets[:, c] != -1],
                                logits[:, c][targets[:, c] != -1])
        for c in range(6)
    ])
    assert values['multi-label/mAP'] == pytest.approx(expected, abs=1e-5)
    voc12 = 100 * np.mean([loop_interpolated_ap(
        logits[:, c].numpy(), targets[:, c].numpy()) for c in range(6)])
    assert values['multi-label/mAP_voc12'] == pytest.approx(voc12, abs=1e-5)
    assert ap.per_class.AP_voc12.mean().item() == pytest.approx(voc12 / 100)
    assert {'multi-label/CF1', 'multi-label/OF1_top3'} <= set(values)


def test_the_prefix_is_what_was_asked_for():
    for metric, name in ((MultiLabelAP(prefix='hidden'), 'mAP'),
                         (MultiLabelF1(prefix='hidden'), 'OF1_top3')):
        metric.process(None, samples(torch.randn(4, 5), torch.ones(4, 5)))
        assert f'hidden/{name}' in metric.evaluate(4)


@pytest.mark.parametrize('empty, factor, how', [
    ('skip', 1, 'left out of'), ('zero', 2 / 3, 'counted as 0 in')])
def test_classes_without_positives_are_counted_and_logged(
        monkeypatch, empty, factor, how):
    said = []
    monkeypatch.setattr(metrics, 'print_log',
                        lambda text, logger: said.append((text, logger)))
    logits = torch.tensor([[3., 1., 2.], [-3., -2., -1.]])
    targets = torch.tensor([[1., 1., 0.], [0., 1., -1.]])
    values = {}
    for metric in MultiLabelAP(empty), MultiLabelF1(empty=empty):
        metric.process(None, samples(logits, targets))
        values.update(metric.evaluate(2))
    assert said == [(f'1 of 3 classes have no known positive here and are '
                     f'{how} the means over classes.', 'current')]
    for name in ('mAP', 'mAP_voc12'):
        assert values[f'multi-label/{name}'] == pytest.approx(100 * factor)
    assert values['multi-label/CR'] == pytest.approx(75 * factor)
    metric = MultiLabelAP(empty)
    metric.process(None, samples(logits[:, :2], targets[:, :2]))
    metric.evaluate(2)
    assert len(said) == 1  # nothing to say


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match='MultiLabelAP has no results: the '
                       'data set is empty, or was not run'):
        MultiLabelAP().evaluate(0)


def test_rows_of_ranks_come_in_the_order_of_the_data():
    rows = torch.arange(6.)[:, None]
    assert torch.equal(in_data_order([rows[0::2], rows[1::2]]), rows)
    assert torch.equal(in_data_order([rows[0::3], rows[1::3], rows[2::3]]),
                       rows)
    assert torch.equal(in_data_order([rows[:4], rows[4:]]), rows)  # unpadded


def test_ranking_uses_logits_where_sigmoids_saturate():
    logits = torch.tensor([[40.], [30.], [20.]])
    targets = torch.tensor([[1.], [0.], [0.]])
    metric = MultiLabelAP()
    metric.process(None, samples(logits, targets))
    assert metric.evaluate(3)['multi-label/mAP'] == 100


def test_logits_of_other_scores_do_not_rank(monkeypatch):
    """As after a test-time augmentation that averages scores alone."""
    said = []
    monkeypatch.setattr(metrics, 'print_log',
                        lambda text, **_: said.append(text))
    logits, merged = torch.randn(2, 30, 4)
    targets = torch.randint(0, 2, (30, 4)).float()
    own, other = MultiLabelAP(), MultiLabelAP()
    own.process(None, samples(merged, targets))
    other.process(None, [
        dict(sample, pred_logit=logit)
        for sample, logit in zip(samples(merged, targets), logits)])
    assert other.evaluate(30) == pytest.approx(own.evaluate(30))
    assert len(said) == 1 and 'ranked by pred_score' in said[0]
    # Zero-shot CLIP has cosines as both; nothing is said of it.
    own.process(None, [dict(pred_score=row, pred_logit=row, gt_score=target)
                       for row, target in zip(logits, targets)])
    own.evaluate(30)
    assert len(said) == 1


def test_repeated_labels_count_once():
    sample = dict(pred_score=torch.tensor([.1, .9]),
                  gt_label=torch.tensor([1, 1]))
    metric = MultiLabelAP()
    metric.process(None, [sample])
    assert metric.held[0, 2].tolist() == [0, 1]


def test_padding_is_not_counted():
    logits, targets = torch.randn(5, 3), torch.ones(5, 3)
    targets[0] = 0
    metric = MultiLabelAP()
    metric.process(None, samples(logits, targets))
    whole = metric.evaluate(5)
    metric.process(None, samples(logits[[0, 1, 2, 3, 4, 0]],
                                 targets[[0, 1, 2, 3, 4, 0]]))
    assert metric.evaluate(5) == whole


def test_both_rules_of_top_k_are_reported():
    logits = torch.tensor([[3., 2., -1., -2.], [1., -3., -2., -1.]])
    targets = torch.tensor([[1., 0., 1., 0.], [0., 0., 0., 1.]])
    metric = MultiLabelF1(topk=2)
    metric.process(None, samples(logits, targets))
    values = metric.evaluate(2)
    # Top-2: classes 0 and 1; 0 and 3. With the threshold class 3 drops out.
    assert values['multi-label/OP_top2'] == pytest.approx(100 * 2 / 4)
    assert values['multi-label/OR_top2'] == pytest.approx(100 * 2 / 3)
    assert values['multi-label/OP_top2_thr'] == pytest.approx(100 * 1 / 3)
    assert values['multi-label/OR_top2_thr'] == pytest.approx(100 * 1 / 3)


def test_table_of_classes(tmp_path):
    logits = torch.randn(30, 3)
    targets = torch.randint(-1, 2, (30, 3)).float()
    targets[:, 2] = -1
    metric = MultiLabelAP()
    metric.process(None, samples(logits, targets))
    metric.evaluate(30)
    rows = per_class_rows(['dog', 'cat', 'cow'], find_per_class([metric]))
    write_per_class(tmp_path / 'c.csv', rows)
    with open(tmp_path / 'c.csv', newline='') as file:
        read = list(csv.DictReader(file))
    assert [row['class'] for row in read] == ['dog', 'cat', 'cow']
    for c in (0, 1):
        known = targets[:, c] != -1
        expected = average_precision_score(targets[known, c], logits[known, c])
        assert float(read[c]['AP']) == pytest.approx(100 * expected, abs=1e-3)
        assert int(read[c]['positives']) == (targets[:, c] == 1).sum()
        assert int(read[c]['known']) == known.sum()
    assert read[2]['AP'] == '' and read[2]['known'] == '0'
    assert per_class_table(rows).row_count == 3


@pytest.mark.parametrize('draw', [
    lambda rng, n: rng.standard_normal(n),
    lambda rng, n: rng.standard_normal(n).round(1),  # many ties
    lambda rng, n: rng.standard_normal(n)**15,  # a few far out
    lambda rng, n: rng.standard_normal(n) * 1e-42,  # subnormal
    lambda rng, n: rng.choice([-3e38, 0., 1., 3e38], n),  # width overflows
    lambda rng, n: np.ones(n),
    lambda rng, n: rng.standard_normal(n).astype(np.float16),
])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_counting_in_bins_is_exact(draw, dtype):
    rng = np.random.default_rng(0)
    values = draw(rng, 60000).astype(dtype)
    thresholds = np.sort(np.concatenate([
        rng.choice(values, 300), draw(rng, 100).astype(dtype)]))
    values = values[values >= thresholds[0]]
    expected = len(values) - np.searchsorted(np.sort(values), thresholds)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert (_count_at_least(values, thresholds) == expected).all()
    assert (_count_at_least(values[:0], thresholds) == 0).all()


@pytest.mark.parametrize('images, classes', [(30000, 2), (50, 21)])
def test_large_sets_equal_sklearn(images, classes):
    rng = np.random.default_rng(1)
    targets = (rng.random((images, classes)) < .1).astype(int)
    targets[0] = 1
    scores = rng.standard_normal(targets.shape) + 2 * targets
    scores = scores.astype(np.float32)
    scores[:, 1] = scores[:, 1].round(2)
    ours = average_precision(torch.tensor(scores), torch.tensor(targets))
    assert ours.dtype == torch.double and len(ours) == classes
    for c in range(classes):
        expected = average_precision_score(targets[:, c], scores[:, c])
        assert ours[c].item() == pytest.approx(expected, abs=1e-9)


def test_names_from_a_stranger_stay_names(tmp_path):
    """No formula for a spreadsheet, no escape code for a terminal."""
    table = PerClass(*(torch.zeros(4) for _ in range(4)))
    names = ['=HYPERLINK("http://a")', '\x1b[2Jdog', '@x', 'cat [bold]']
    rows = per_class_rows(names, table)
    write_per_class(tmp_path / 'a.csv', rows)
    with open(tmp_path / 'a.csv', newline='') as file:
        found = [row[0] for row in csv.reader(file)][1:]
    assert found == ['\'=HYPERLINK("http://a")', '\\x1b[2Jdog', "'@x",
                     'cat [bold]']
    console = Console(width=200)
    with console.capture() as screen:
        console.print(per_class_table(rows))
    assert '\x1b[2J' not in screen.get() and 'cat [bold]' in screen.get()


def test_nan_reaches_no_threshold():
    with pytest.raises(ValueError, match='NaN'):
        predict(torch.tensor([[.1, float('nan')]]), .5)
