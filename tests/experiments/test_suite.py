"""The benchmark suite, and the commands around it."""
import json
from collections import defaultdict

import pytest
from tests_support import ROOT, call_tool

from trm_ml_mm.evaluation.run_record import FILE
from trm_ml_mm.experiments.suites import (
    ABLATION_SETTINGS,
    FEW_LABELS,
    SETTINGS,
    TRAINED,
    ZERO_SHOT,
    method_of,
    plan_suite,
)
from trm_ml_mm.experiments.tables import markdown, setting_name

CONFIGS = ROOT / 'configs'


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def tool(name, *arguments):
    return call_tool(f'tools/{name}.py', arguments)


def test_every_config_runs_with_several_seeds_and_unseen_scenes():
    parts = {part.name: part.jobs for part in plan_suite(CONFIGS)}
    runs = {}
    for jobs in parts.values():
        for job in jobs:
            runs.setdefault(method_of(job), {}).setdefault(
                (job.known, job.data[1:]), set()).add((job.data[0], job.seed))
    names = {p.stem for folder in ('baselines', 'ablations')
             for p in (CONFIGS / folder).glob('*.py')}
    # Zero-shot rows come from the runs of the others.
    assert names | {'trm_ml'} == {*runs, *ZERO_SHOT}
    for method, by_setting in runs.items():
        main = method in ('trm_ml', 'base', *TRAINED)
        known = {setting for setting, data in by_setting if not data}
        assert known == {*SETTINGS, 'all', *FEW_LABELS} if main else (
            known == set(ABLATION_SETTINGS)), method
        for (setting, other), seeds in by_setting.items():
            assert len(seeds) == (4 if main and not other and (
                setting in (*SETTINGS, 'all')) else 2)
            # Set 0, on which settings were chosen, is not among them.
            assert {data for data, _ in seeds} == {
                'scene_set=2', 'scene_set=3'}
    quick, = plan_suite(CONFIGS, quick=True)
    assert {method_of(job) for job in quick.jobs} == {
        'trm_ml', 'base', *TRAINED}


def test_the_parts_of_the_suite_are_those_of_the_command():
    out = tool('evidence', '--help').out
    names = ','.join(part.name for part in plan_suite(CONFIGS))
    assert f'{{{names}}}' in out


def test_a_report_needs_the_main_part(tmp_path):
    failed = tool('evidence', '--report', '--out', tmp_path)
    assert failed.status == 1
    assert 'runs are missing or failed' in failed.err
    assert 'without --report' in failed.err
    assert not list(tmp_path.iterdir())


def test_a_search_ranks_by_validation(tmp_path):
    out = tool(
        'tune', 'configs/baselines/linear_probe.py', '--search',
        'optim_wrapper.optimizer.lr=1e-5,3e-2', '--known', '0.5', '--seeds',
        '3', '4', '--out', tmp_path, '--cfg-options', 'train_cfg.max_epochs=3',
        'train_cfg.val_interval=3',
        'train_dataloader.dataset.dataset.num_images=300',
        'val_dataloader.dataset.num_images=200',
        'test_dataloader.dataset.num_images=120')
    assert out.status == 0, out.err[-2000:]
    found = defaultdict(list)
    for path in tmp_path.rglob(FILE):
        rate = next(p for p in path.parts if p.startswith('lr='))
        found[rate].append(json.loads(path.read_text())['validation']['mAP'])
    assert all(len(set(values)) == 2 for values in found.values())
    figures = {rate: sum(values) / 2 for rate, values in found.items()}
    ranked = sorted(figures, key=figures.get, reverse=True)
    assert len(ranked) == 2 and figures[ranked[0]] > figures[ranked[1]]
    lines = [['linear_probe', setting_name(.5), 'mean'],
             *([rate, *[f'{figures[rate]:.2f}'] * 2] for rate in ranked)]
    assert markdown(lines) in out.out
    table, = tmp_path.glob('*.md')
    assert table.name == 'linear_probe_lr=1e-5,3e-2.md'
    assert table.read_text() == markdown(lines)
    bad = tool('tune', 'configs/baselines/linear_probe.py', '--search', 'lr',
               '--out', tmp_path)
    assert bad.status == 1 and 'key=value' in bad.err
