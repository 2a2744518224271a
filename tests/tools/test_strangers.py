"""Malicious files, given to every tool that takes such a file."""
import json
import pickle
import runpy
import sys

import numpy as np
import pytest
import torch
from malicious import Evil, Writes
from mmengine.logging import MMLogger
from tests_support import ROOT

from trm_ml_mm.experiments.manifest import FORMAT
from trm_ml_mm.features.storage import (
    NO_FILE,
    CacheMeta,
    FeatureCache,
    ImageFile,
)

SCENES = 'configs/trm_ml_scenes.py'


def bare_pickle(folder, marker):
    path = folder / 'evil.pkl.pth'
    path.write_bytes(pickle.dumps(Evil(marker)))
    return path


def checkpoint(folder, marker):
    path = folder / 'evil.pth'
    torch.save(dict(state_dict=Evil(marker), meta={}), path)
    return path


def archive(folder, marker):
    path = folder / 'evil.pt'
    torch.jit.script(Writes(str(marker))).save(path)
    return path


def arrays(folder, marker):
    path = folder / 'evil.npz'
    np.savez(path, mask=np.array([Evil(marker)], object),
             labels=np.array([Evil(marker)], object))
    return path


def array(folder, marker):
    path = folder / 'evil.npy'
    np.save(path, np.array([Evil(marker)], object), allow_pickle=True)
    return path


def bomb(folder, marker):
    """A few kilobytes that claim to be a terabyte."""
    path = folder / 'bomb.npy'
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, dict(
            descr='|b1', fortran_order=False, shape=(10**6, 10**6)))
        file.write(bytes(1000))
    return path


def cache(folder, marker):
    path = folder / 'features'
    for place in ('train', 'test', 'all/train'):  # the last one of a grid
        (path / place).mkdir(parents=True)
        FeatureCache.create(path / place, CacheMeta(
            't', {}, [], 1, (2, 2), 4, 'float32')).update(
                [ImageFile('a.jpg', 'a.jpg', NO_FILE, 0)])
        np.save(path / place / 'part_0/state.npy',
                np.array([Evil(marker)] * 3, object), allow_pickle=True)
    return path


def record(folder, marker):
    """The results of a run, which are code and no JSON."""
    path = folder / 'run'
    path.mkdir()
    (path / 'test_results.json').write_text(
        f'__import__("builtins").open({str(marker)!r}, "w")')
    return path


def manifest(folder, marker):
    """A folder of runs with one more run, whose manifest names a config."""
    path = folder / 'grid'
    run = path / 'evil/0.1/seed0'
    run.mkdir(parents=True)
    config = folder / 'evil_config.py'
    config.write_text(f'open({str(marker)!r}, "w")')
    (run / 'grid_job.json').write_text(json.dumps(dict(
        method='evil', config=str(config), known=.1, seed=0, data=[],
        variant=[], options=[], content='0', features=False, code='x',
        format=FORMAT)))
    (run / 'test_results.json').write_text('[1, {"a": NaN}]')
    return path


# tool, its arguments, and the kinds of file that stand for FILE
ROUTES = [
    ('train', [SCENES, '--resume', 'FILE'],
     [bare_pickle, checkpoint, archive, array]),
    ('train', [SCENES, '--cfg-options', 'load_from=FILE'],
     [bare_pickle, archive]),
    ('train', [SCENES, '--cfg-options', 'model.backbone.weights=FILE'],
     [bare_pickle, checkpoint, archive, array]),
    ('train', [SCENES, '--cfg-options', 'train_dataloader.dataset.known=FILE'],
     [arrays, bomb]),
    ('train', [SCENES, '--cfg-options', 'feature_cache=FILE'], [cache]),
    ('test', [SCENES, 'FILE'], [bare_pickle, checkpoint, archive, array]),
    ('test', [SCENES, 'FILE', '--cfg-options', 'model.backbone.weights=FILE'],
     [checkpoint, archive]),
    ('cache_features', [SCENES, '--out', 'FILE'], [cache]),
    ('cache_features', [SCENES, '--cfg-options',
                        'model.backbone.weights=FILE'], [checkpoint, archive]),
    ('inspect_data', [SCENES, '--cfg-options',
                      'train_dataloader.dataset.known=FILE'],
     [arrays, array, bomb]),
    ('inspect_tower', [SCENES, '--cfg-options',
                       'model.backbone.weights=FILE'], [checkpoint, archive]),
    ('make_masks', ['FILE'], [arrays, array, bomb]),
    ('make_masks', [SCENES, '--verify', 'FILE'], [arrays, bomb]),
    ('make_masks', [SCENES, '--known', '.1', '--proposer', 'FILE'],
     [array, bomb]),
    ('class_prior', [SCENES, 'FILE', '--out', 'OUT'],
     [bare_pickle, checkpoint, archive]),
    ('train', [SCENES, '--cfg-options',
               'model.head.loss.type=trm_ml_mm.SelectiveLoss',
               'model.head.loss.prior=FILE'], [array, bomb]),
    ('run_grid', [SCENES, '--known', 'FILE', '--out', 'OUT', '--processes',
                  '1'], [arrays]),
    ('run_grid', [SCENES, '--known', '.1', '--out', 'FILE'], [manifest]),
    ('run_grid', [SCENES, '--known', '.1', '--features', 'FILE', '--out',
                  'OUT'], [cache]),
    ('tune', [SCENES, '--search', 'lr=1', '--out', 'FILE'], [manifest]),
    ('evidence', ['--report', '--out', 'FILE', '--docs', 'OUT'], [manifest]),
]


@pytest.mark.parametrize('name, arguments, kind', [
    pytest.param(name, arguments, kind,
                 id=f'{name}-{arguments[-1].split("=")[0]}-{kind.__name__}')
    for name, arguments, kinds in ROUTES for kind in kinds])
def test_no_file_of_a_stranger_runs_in_a_tool(name, arguments, kind, tmp_path,
                                              monkeypatch, capfd):
    """The tool ends with one sentence; nothing ran, nothing else changed."""
    marker = tmp_path / 'ran'
    (tmp_path / 'files').mkdir()
    file = kind(tmp_path / 'files', marker)
    before = contents(tmp_path / 'files')
    own = {'FILE': str(file), 'OUT': str(tmp_path / 'out')}
    for word, path in own.items():
        arguments = [a.replace(word, path) for a in arguments]
    options = [f'work_dir={tmp_path / "work"}',
               'train_dataloader.dataset.dataset.num_images=48',
               'val_dataloader.dataset.num_images=24',
               'test_dataloader.dataset.num_images=24',
               'train_cfg.max_epochs=1']
    if '--cfg-options' in arguments:
        arguments = [*arguments, *options]
    elif name != 'evidence' and arguments[0] == SCENES:
        if name in ('run_grid', 'tune'):
            options = options[1:]
        arguments = [*arguments, '--cfg-options', *options]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *arguments])
    said = ''
    try:
        runpy.run_path(f'tools/{name}.py', run_name='__main__')
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
    except SystemExit as end:
        said = str(end.code)
    out, err = capfd.readouterr()
    assert not marker.exists()
    assert contents(tmp_path / 'files').items() >= before.items()
    sentence = said if len(said) > 10 else out + err
    assert any(str(path) in sentence for path in [file, *file.rglob('*')] if (
        path.exists())) or 'FAILED' in sentence, (said, out[-800:], err[-800:])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*')
            if path.is_file()}


@pytest.fixture(autouse=True)
def _loggers_of_a_tool_end_with_it():
    yield
    MMLogger._instance_dict.clear()
