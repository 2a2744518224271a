"""The benchmark of labels that are not missing at random, on a few scenes."""
import json
import runpy
import sys

import numpy as np
import pytest
from tests_support import ROOT

from trm_ml_mm.datasets import Scenes, label_matrix, load_mask
from trm_ml_mm.datasets.scenes.rendering import object_mask
from trm_ml_mm.datasets.scenes.world import compose_scene
from trm_ml_mm.evaluation.run_record import FILE
from trm_ml_mm.experiments.manifest import FILE as MANIFEST

SMALL = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
         'default_hooks.checkpoint.save_best=None',
         'train_dataloader.dataset.dataset.num_images=64',
         'val_dataloader.dataset.num_images=40',
         'test_dataloader.dataset.num_images=48']


@pytest.fixture
def benchmark(monkeypatch):
    """Its functions, with few scenes, views and runs."""
    names = runpy.run_path(
        str(ROOT / 'tools/benchmarks/not_at_random.py'))
    own = names['main'].__wrapped__.__globals__
    own.update(OPTIONS=SMALL, VIEWS=1, HEADS=own['HEADS'][2:],
               TOPS=(3, ), THRESHOLDS=(.2, ))
    return own


def test_areas_are_those_of_the_largest_visible_object(benchmark):
    scenes = Scenes(num_images=12, scene_set=2)
    areas = benchmark['visible_areas'](scenes)
    assert ((areas > 0) == (label_matrix(scenes) == 1)).all()
    largest = np.zeros_like(areas)
    for i in range(12):
        _, objects = compose_scene(2, 'train', i, scenes.size)
        covers = [object_mask(one, scenes.size) > 127 for one in objects]
        for n, one in enumerate(objects):
            seen = covers[n].copy()
            for above in covers[n + 1:]:
                seen &= ~above
            if one.name in scenes.class_names and (
                    seen.sum() >= .4 * covers[n].sum()):
                c = scenes.class_names.index(one.name)
                largest[i, c] = max(largest[i, c], seen.sum())
    assert np.allclose(areas, largest)


def test_a_small_benchmark_runs(benchmark, tmp_path, monkeypatch, capsys):
    """One head and one seed: every method on both masks, and the prior of the
    selective loss from the run that ignored unknown labels."""
    monkeypatch.setattr(sys, 'argv', ['x', '--seeds', '1', '--processes', '2',
                                      '--out', str(tmp_path)])
    benchmark['main']()
    out = capsys.readouterr().out
    runs = {}
    for path in tmp_path.rglob(MANIFEST):
        job = json.loads(path.read_text())
        record = json.loads((path.parent / FILE).read_text())
        runs[job['method'], job['known'] == .1] = job, record
    methods = {'trm_ml_scenes', 'trm_ml_no_class_ratio', 'linear_probe',
               'linear_probe_negative', 'linear_probe_selective'}
    assert runs.keys() == {(m, r) for m in methods for r in (True, False)}
    for (method, _), (job, record) in runs.items():
        assert job['data'] == ['scene_set=2'] and job['seed'] == 0
        last, = (row for row in record['rows'] if row['kind'] == 'last')
        assert f'{last["metrics"]["mAP"]:.2f}' in out
        assert bool(job['variant']) == method.endswith('selective')
    priors = sorted((tmp_path / 'priors').iterdir())
    assert [np.load(path).shape for path in priors] == [(30, ), (30, )]
    mask, = (tmp_path / 'masks').iterdir()
    masks = {record['known_labels']['hash'] for (_, random), (_, record)
             in runs.items() if not random}
    assert masks == {load_mask(mask).hash} and load_mask(mask).mask.mean() == .1
