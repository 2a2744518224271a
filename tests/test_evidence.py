"""The commands that make the evidence."""
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from tests_support import ROOT

from trm_ml_mm.engine.grid import markdown, setting_name
from trm_ml_mm.engine.results import TRAINED, method_of


def tool(name, *arguments):
    return subprocess.run(
        [sys.executable, f'tools/{name}.py', *map(str, arguments)], cwd=ROOT,
        capture_output=True, text=True,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})


@pytest.fixture
def evidence():
    spec = importlib.util.spec_from_file_location(
        'evidence', ROOT / 'tools/evidence.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_config_runs_in_every_setting_with_three_seeds(evidence):
    runs = {}
    for job in evidence.plan_all(quick=False):
        runs.setdefault(method_of(job), {}).setdefault(
            job.known, set()).add((job.scene_set, job.seed))
    names = {p.stem for folder in ('baselines', 'ablations')
             for p in (ROOT / 'configs' / folder).glob('*.py')}
    assert names | {'trm_ml', 'trm_ml_oracle'} == set(runs)
    assert runs.pop('trm_ml_oracle').keys() == {'all'}
    for method, by_setting in runs.items():
        assert set(by_setting) == set(evidence.SETTINGS), method
        for places in by_setting.values():
            assert len(places) >= 3
            assert {scene_set for scene_set, _ in places} == {0, 1}
    quick = {method_of(job) for job in evidence.plan_all(quick=True)}
    assert quick == {'trm_ml', 'trm_ml_oracle', 'base', *TRAINED}


def test_a_report_may_lack_ablations_and_nothing_else(evidence, tmp_path):
    for job in evidence.plan_all(quick=False):
        assert evidence.is_ablation(job) == (
            method_of(job) not in ('trm_ml', 'trm_ml_oracle', 'base',
                                   *TRAINED))
    failed = tool('evidence', '--report', '--out', tmp_path)
    assert failed.returncode == 1
    assert 'runs are missing or failed' in failed.stderr
    assert 'without --report' in failed.stderr
    assert not list(tmp_path.iterdir())


def test_a_search_ranks_by_validation(tmp_path):
    out = tool(
        'tune', 'configs/baselines/linear_probe.py', '--search',
        'optim_wrapper.optimizer.lr=1e-5,3e-2', '--known', '0.5', '--out',
        tmp_path, '--cfg-options', 'train_cfg.max_epochs=3',
        'train_cfg.val_interval=3',
        'train_dataloader.dataset.dataset.num_images=300',
        'val_dataloader.dataset.num_images=200',
        'test_dataloader.dataset.num_images=120')
    assert out.returncode == 0, out.stderr[-2000:]
    figures = {}
    for path in tmp_path.rglob('test_results.json'):
        rate = next(p for p in path.parts if p.startswith('lr='))
        figures[rate] = json.loads(path.read_text())['validation']['mAP']
    ranked = sorted(figures, key=figures.get, reverse=True)
    assert len(ranked) == 2 and figures[ranked[0]] > figures[ranked[1]]
    lines = [['linear_probe', setting_name(.5), 'mean'],
             *([rate, *[f'{figures[rate]:.2f}'] * 2] for rate in ranked)]
    assert markdown(lines) in out.stdout
    table, = tmp_path.glob('*.md')
    assert table.name == 'linear_probe_lr=1e-5,3e-2.md'
    assert table.read_text() == markdown(lines)
    bad = tool('tune', 'configs/baselines/linear_probe.py', '--search', 'lr',
               '--out', tmp_path)
    assert bad.returncode == 1 and 'key=value' in bad.stderr
