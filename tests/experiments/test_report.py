"""The report: its figures by hand, and a whole small one."""
import json
import statistics

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_score, recall_score
from tests_support import ROOT

from trm_ml_mm.engine.hooks.pseudo_labels import pseudo_label_counts, quality
from trm_ml_mm.evaluation.run_record import LAST, read_record
from trm_ml_mm.experiments.plan import plan as plan_jobs
from trm_ml_mm.experiments.report import (
    cost_table,
    difference_table,
    margin_table,
    write_report,
)
from trm_ml_mm.experiments.results import Results
from trm_ml_mm.experiments.run import cache_features, run_grid
from trm_ml_mm.experiments.suites import (
    BASE,
    BASELINES,
    OURS,
    TRAINED,
    ZERO_SHOT,
    Part,
    method_of,
)
from trm_ml_mm.experiments.tables import mean_and_deviation
from trm_ml_mm.models import load_clip
from trm_ml_mm.models.towers import resnet_attention


def rows():
    """Figures 10 m + 3 s + s^2 for method m and seed s."""
    return [
        dict(method=method, known=known, seed=seed, scene_set=seed % 2,
             mAP=10. * m + 3 * seed + seed**2)
        for m, method in enumerate([BASE, *BASELINES, OURS])
        for known in (.1, 'single_positive') for seed in range(4)
    ]


def test_deviations_are_within_scene_sets():
    values = {(0, 0): 1., (0, 2): 3., (1, 1): 11., (1, 3): 15.}
    mean, deviation = mean_and_deviation(values)
    assert mean == 7.5
    expected = (statistics.variance([1, 3]) + statistics.variance([11, 15]))
    assert deviation == pytest.approx((expected / 2)**.5)
    assert mean_and_deviation({(0, 0): 1., (1, 1): 2.}) == (1.5, None)


def test_margins_and_differences_by_hand():
    results = Results.from_rows(rows())
    lines = margin_table(results)
    assert lines[0] == ['TRM-ML minus', '10%', 'single positive']
    # Within sets: 0, 10 and 4, 18.
    deviation = ((statistics.variance([0, 10]) +
                  statistics.variance([4, 18])) / 2)**.5
    assert lines[1][:2] == ['zero_shot_global',
                            f'+70.00 (deviations {2 * deviation:.2f})']
    assert difference_table(results, [OURS], BASE)[1] == [
        OURS, '+80.00 ± 0.00 (n=4)', '+80.00 ± 0.00 (n=4)']


def test_missing_labels_cost_a_method_what_it_loses():
    complete = [dict(row, known='all', mAP=row['mAP'] + 2 + row['seed'])
                for row in rows() if row['known'] == .1]
    lines = cost_table(Results.from_rows(rows() + complete), [OURS])
    # Run by run: -2, -3, -4, -5.
    cell = f'-3.50 ± {statistics.stdev([2, 3, 4, 5]):.2f} (n=4)'
    assert lines == [['minus all labels known', '10%', 'single positive'],
                     [OURS, cell, cell]]


def test_differences_pair_the_runs_that_both_have():
    some = [r for r in rows() if r['method'] != OURS or r['seed'] < 3]
    for row in some:
        if row['method'] == OURS:
            row['mAP'] += row['seed']
    line = difference_table(Results.from_rows(some), [OURS], BASE)[1]
    # Scene sets do not matter to a pair: 80, 81 and 82.
    assert line[1] == f'+81.00 ± {statistics.stdev([80, 81, 82]):.2f} (n=3)'


def test_quality_equals_sklearn():
    pseudo, truth = torch.randint(-1, 2, (2, 50, 6))
    got = quality(pseudo_label_counts(pseudo, truth))
    made = truth != -1
    for name, value in (('positive', 1), ('negative', 0)):
        guess, right = (pseudo == value)[made], (truth == value)[made]
        assert got[f'{name}_precision'] == pytest.approx(
            precision_score(right, guess))
        assert got[f'{name}_recall'] == pytest.approx(
            recall_score(right, guess))


def test_image_attention_is_what_clips_pool_does():
    """PyTorch's own attention with the pool's projections."""
    visual = load_clip('mini', None).model.visual
    pool, trunk = visual.attnpool, torch.randn(2, 512, 6, 6)
    x = trunk.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x])
    x = x + pool.positional_embedding[:, None]
    _, expected = F.multi_head_attention_forward(
        x[:1], x, x, x.shape[-1], pool.num_heads, None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        None, None, False, 0., pool.c_proj.weight, pool.c_proj.bias,
        use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight)
    assert torch.allclose(resnet_attention(visual, trunk), expected[:, 0, 1:],
                          atol=1e-6)


TINY = ['train_dataloader.dataset.dataset.num_images=64',
        'val_dataloader.dataset.num_images=20',
        'test_dataloader.dataset.num_images=120', 'train_cfg.max_epochs=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.save_best=None']


def test_a_small_grid_becomes_a_report(tmp_path):
    configs = [str(ROOT / 'configs/trm_ml_scenes.py'), *(
        str(ROOT / f'configs/baselines/{name}.py') for name in TRAINED),
        *(str(ROOT / f'configs/ablations/{name}.py')
          for name in ('base', 'base_pseudo', 'mean_level'))]
    data = [('scene_set=0', )]
    known = [.3, 'all']
    main = plan_jobs(configs[:-2], known, [0], data)
    parts = [Part('main', main),
             Part('ablations', plan_jobs(configs[-2:], [.3], [0], data)),
             Part('few_labels', plan_jobs(configs[:1], [.05], [0], data)),
             Part('scenes_500', plan_jobs(configs[:1], [.1], [0], data))]
    jobs = [job for part in parts[:3] for job in part.jobs]
    cache_features(jobs, tmp_path / 'features', 1, TINY)
    run_grid(jobs, tmp_path, ROOT / 'tools/train.py', None, TINY,
             tmp_path / 'features')
    text = write_report(parts, tmp_path, tmp_path / 'docs', 'the command')
    found = json.loads((tmp_path / 'docs/results.json').read_text())
    assert {(r['part'], r['method'], r['known']) for r in found} == {
        *(('main', m, k) for m in (OURS, BASE, *BASELINES) for k in known),
        *(('ablations', m, .3)
          for m in ('base_pseudo', 'mean_level', *ZERO_SHOT)),
        *(('few_labels', m, .05) for m in (OURS, *ZERO_SHOT))}
    for row in found:  # the figures are those that the runs wrote
        whole = row['method'] in ZERO_SHOT
        job = next(j for j in jobs if j.known == row['known'] and (
            whole or method_of(j) == row['method']))
        kind = row['method'] if whole else LAST
        written = read_record(job.work_dir(tmp_path)).row(kind)
        assert row['mAP'] == written.metrics['mAP']
    assert '`the command` wrote' in text and '| base_pseudo ' in text
    assert '## Few labels' in text and '500 training scenes' not in text
    assert 'Parts with runs that are missing: scenes_500.' in text
    pictures = sorted(p.name for p in (tmp_path / 'docs/pictures').iterdir())
    assert [p for p in pictures if p in text] == pictures
    assert len(pictures) == 4
    # The quality of pseudo-labels stands beside the run.
    lines = (main[0].work_dir(tmp_path) / 'pseudo_labels.csv').read_text()
    assert len(lines.splitlines()) == 3
