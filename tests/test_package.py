"""What is installed: the wheel, outside of the repository."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tests_support import ROOT

from trm_ml_mm.apis import get_config, get_model, list_models
from trm_ml_mm.models import CLIPClassifier

BUILD = '''
import setuptools.build_meta as meta, sys
out = sys.argv[1]  # the first call changes it
meta.build_sdist(out)
meta.build_wheel(out)
'''
USE = '''
import trm_ml_mm
assert '.mim' in str(trm_ml_mm.utils.package.package_folder()), trm_ml_mm
import mmpretrain
from mmengine.config import Config
from trm_ml_mm.apis import get_model, list_models
name = 'trm-ml_mini_1xb64_scenes-96px_p10'
assert name in list_models('*scenes*')
assert mmpretrain.list_models('*trm-ml_mini*_p10') == [name]
for model in (mmpretrain.get_model(name), get_model(name),
              get_model('trm_ml_scenes.py')):
    print(type(model).__name__)
cfg = Config.fromfile('scenes.py')
print(cfg.train_dataloader.dataset.known, cfg.visualizer.type)
'''
CONSOLE = '''
import glob, sys
from trm_ml_mm.cli.main import main
checkpoint = sys.argv[1]

def trm_ml(line):
    sys.argv = ['trm-ml', *line.split()]
    main()

trm_ml(f'publish {checkpoint} --out release')
model, = glob.glob('release/*.pth')
trm_ml(f'predict data/images --checkpoint {model} --out overlays')
trm_ml(f'fill data/labels.csv --images data/images --checkpoint {model} '
       '--out filled.csv --folds 2')
trm_ml(f'export {model} --out model.onnx --rounds 0')
'''
SCENES = '''
_base_ = 'trm_ml_mm::trm_ml_scenes.py'
train_dataloader = dict(dataset=dict(known=.5))
'''
OWN = '''
_base_ = 'trm_ml_mm::trm_ml_csv.py'
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
    dataset=dict(data_root='data', ann_file='labels.csv')))
val_dataloader = dict(num_workers=0, dataset=dict(
    data_root='data', ann_file='labels.csv'))
test_dataloader = val_dataloader
model = dict(backbone=dict(arch='mini', weights=None))
image_size = 96
epochs = 1
'''


def configs():
    return [path for path in sorted((ROOT / 'configs').rglob('*.py'))
            if '_base_' not in path.parts]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """Folder with the source distribution and the wheel of this tree."""
    out = tmp_path_factory.mktemp('dist')
    source = tmp_path_factory.mktemp('source')
    files = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'],
                           cwd=ROOT, text=True, capture_output=True)
    if files.returncode:
        pytest.skip('this is no git checkout')
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, '-c', BUILD, str(out)], cwd=source,
                   check=True, capture_output=True)
    return out


def test_a_source_distribution_has_what_the_repository_has(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for folder in ('docs', 'tests', 'tools', 'configs', '.ci', 'trm_ml_mm'):
        for path in (ROOT / folder).rglob('*'):
            if path.suffix in ('.py', '.md', '.sh', '.yml', '.pth', '.j2') and (
                    '.mim' not in path.parts):
                assert str(path.relative_to(ROOT)) in names
    assert {'README.md', 'CHANGELOG.md', 'model-index.yml', 'LICENSE',
            '.ci/run', 'docs/results.json', 'mkdocs.yml'} <= names


def test_the_wheel_is_complete_without_the_repository(built, tmp_path):
    """Names, inheritance from other packages' configs, and one's own folder
    with one config and one table."""
    with zipfile.ZipFile(next(built.glob('*.whl'))) as wheel:
        wheel.extractall(tmp_path / 'site')
    entries, = (tmp_path / 'site').glob('*.dist-info/entry_points.txt')
    assert 'trm-ml = trm_ml_mm.cli.main:main' in entries.read_text()
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'scenes.py').write_text(SCENES)
    (folder / 'own.py').write_text(OWN)

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
                **os.environ, 'PYTHONPATH': str(tmp_path / 'site'),
                'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    lines = run('-W', 'ignore', '-c', USE).splitlines()[-4:]
    assert lines == [*['CLIPClassifier'] * 3, '0.5 UniversalVisualizer']
    run('-m', 'trm_ml_mm.cli.main', 'make-scenes', '--out', 'data',
        '--images', '8')
    tools = tmp_path / 'site/trm_ml_mm/.mim/tools'
    assert 'last epoch' in run(str(tools / 'train.py'), 'own.py')
    shutil.copy(folder / 'work_dirs/own/epoch_1.pth', tmp_path / 'a.pth')
    shown = run('-c', CONSOLE, str(tmp_path / 'a.pth'))
    assert 'Written: filled.csv' in shown and 'model.onnx' in shown
    assert len(list((folder / 'overlays').iterdir())) == 8
    assert len((folder / 'filled.csv').read_text().splitlines()) == 9


def test_every_config_has_a_name_of_its_own():
    """OpenMIM takes a config by its file name alone."""
    names = Counter(path.name for path in (ROOT / 'configs').rglob('*.py'))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_index_lists_the_configs_that_there_are():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [model for path in index['Import']
              for model in yaml.safe_load((ROOT / path).read_text())['Models']]
    listed = {model['Name']: model for model in models}
    found = {path.stem: path for path in (ROOT / 'configs/trm_ml').glob('*.py')}
    assert listed.keys() == found.keys() == set(list_models())
    page = (ROOT / 'configs/trm_ml/README.md').read_text()
    for name, model in listed.items():
        assert ROOT / model['Config'] == found[name]
        cfg = get_config(name)
        size = cfg.train_dataloader.batch_size
        assert f'_1xb{size}_' in name
        assert model['Metadata']['Batch Size'] == size
        assert cfg.auto_scale_lr == dict(base_batch_size=size, enable=False)
        assert cfg.train_cfg.max_epochs == model['Metadata']['Epochs']
        known = cfg.train_dataloader.dataset.known
        assert name.endswith({.1: '_p10', 'single_positive': '_sp',
                              'all': 'px'}[known])
        assert f'`{name}.py`' in page


def test_a_model_by_its_name(small_run, tmp_path):
    assert isinstance(get_model('trm_ml_scenes.py'), CLIPClassifier)
    small_run({'train_cfg.max_epochs': 1}).train()
    path = str(tmp_path / 'run/epoch_1.pth')
    model = get_model('trm-ml_mini_1xb64_scenes-96px_p10', path)
    assert model.head.calibrated and not model.training
    with pytest.raises(ValueError, match='no model "trm-ml"'):
        get_model('trm-ml')
    with pytest.raises(FileNotFoundError, match='no config trm_ml.py'):
        get_model('trm_ml.py')


def test_tools_for_slurm_pass_everything_on(tmp_path):
    """With a srun that only prints its arguments."""
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    fake.chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}',
           'GPUS': '16', 'SRUN_ARGS': '--time 1:00 --mem 9', 'PYTHON': 'py'}

    def printed(script, *arguments):
        return subprocess.run(
            ['bash', str(ROOT / 'tools' / script), 'part', 'job', 'c.py',
             *arguments], env=env, check=True, text=True,
            capture_output=True).stdout.split('\n')[:-1]

    train = printed('slurm_train.sh', 'dir', '--cfg-options', "a='b c'")
    assert train[:7] == ['-p', 'part', '--job-name=job', '--ntasks=16',
                         '--ntasks-per-node=8', '--cpus-per-task=5',
                         '--kill-on-bad-exit=1']
    assert train[7:12] == ['--gres=gpu:8', '--time', '1:00', '--mem', '9']
    assert train[12:14] == ['py', '-u'] and Path(train[14]).name == 'train.py'
    assert train[15:] == ['c.py', '--work-dir', 'dir', '--cfg-options',
                          "a='b c'", '--launcher', 'slurm']
    test = printed('slurm_test.sh', 'e.pth', '--tta')
    assert test[:12] == train[:12] and Path(test[14]).name == 'test.py'
    assert test[15:] == ['c.py', 'e.pth', '--tta', '--launcher', 'slurm']
