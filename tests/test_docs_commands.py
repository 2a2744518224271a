"""Every shell block of README and docs is run, in the order of its page.

The reader's folder has what the pages take for granted: tools, a checkpoint,
photos, tables, and samples of the public data sets that are laid out as their
downloads. Its configs are those of the package with few images and the
built-in CLIP, so that the commands themselves can stay as they are. What
cannot be run here is in :data:`NOT_HERE`, with the reason. The list of all
commands is printed after the tests.
"""
import itertools
import json
import re
import shutil
import sys

import pytest
import trees
from shell import Shell, blocks, lines
from tests_support import ROOT, build_small, trm_ml

from trm_ml_mm.cli.arguments import setting
from trm_ml_mm.engine import load_config
from trm_ml_mm.experiments.plan import parse_options, plan
from trm_ml_mm.labels.names import scene_classes

PAGES = {path.relative_to(ROOT).as_posix(): path for path in [
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').glob('*/README.md'))] if blocks(path)}
# These pages have tests of their own, which compare their outputs too.
OWN_TESTS = {'docs/own_photos.md': 'tests/test_own_photos.py',
             'docs/extending.md': 'tests/test_extending.py'}
# Page: the start of a line -> why it is not run by this test.
NOT_HERE = {
    'CONTRIBUTING.md': {
        'python3 -m venv': 'an installation',
        '.venv/bin/pip': 'an installation',
        '.venv/bin/python -m pytest': 'these are the tests',
        '.venv/bin/python -m mkdocs': 'run by tests/test_docs_site.py',
        '.venv/bin/pre-commit': 'needs the internet'},
    'docs/annotation.md': {
        'pip': 'installs Label Studio, which tests/annotation reads with',
        'export': 'for Label Studio', 'label-studio': 'a server'},
    'docs/demo.md': {'pip': 'an installation'},
    'docs/export.md': {
        'pip': 'an installation',
        'OMP_NUM_THREADS=1 python tools/benchmarks': 'measures for minutes'},
    'docs/many_gpus.md': {
        'bash tools/dist': 'run by tests/engine/test_distributed.py',
        'NNODES': 'run by tests/engine/test_distributed.py, on two nodes',
        'GPUS': 'run by tests/engine/test_distributed.py, with a stand-in '
                'for srun'},
    'docs/not_at_random.md': {
        'python tools/benchmarks': 'trains for minutes; its parts are run by '
                                   'tests/tools/test_not_at_random.py',
        'python tools/tune.py': 'trains for minutes'},
    'docs/own_project.md': {
        'mim': 'tried by hand: OpenMIM is not installed here'},
    'docs/performance.md': {
        'python tools/benchmarks': 'measures for minutes',
        'python -m torch.distributed.run': 'run by tests/features/'
                                           'test_cache.py'},
    'docs/scale.md': {'python tools/benchmarks': 'measures for minutes'},
    'docs/shards.md': {'python tools/benchmarks': 'measures for minutes'},
    'docs/benchmarks.md': {
        'python tools/evidence.py': 'takes hours; its parts are run by '
                                    'tests/experiments/test_suite.py'},
}
# Many runs, which take hours as they stand: every setting is built, and the
# first search is run. (Grids are run by tests/experiments/.)
MANY_RUNS = re.compile(r' *(tune|again|longer) |.*tools/run_grid\.py ')
# An installation is not repeated, and its folder has no training yet.
INSTALLED = re.compile(r'^python3 -m venv .* && \.venv/bin/')
# What a page takes for granted that others make.
PREPARED = {
    'docs/own_project.md':
    'cp data/own/labels.csv train.csv; cp data/own/labels.csv val.csv; '
    'cp -r data/own/images .',
    'docs/report.md': 'cp -r work_dirs/trm_ml_scenes work_dirs/text_pixel',
    'docs/performance.md': 'trm-ml split data/own/labels.csv '
                           '--images data/own/images',
    'docs/shards.md': 'trm-ml split data/own/labels.csv '
                      '--images data/own/images'}


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """The reader's folder."""
    folder = tmp_path_factory.mktemp('start')
    build_small(folder, {'train_cfg.max_epochs': 1}).train()
    shutil.copy(folder / 'run/epoch_1.pth', folder / 'epoch_10.pth')
    (folder / 'work_dirs').mkdir()
    (folder / 'run').rename(folder / 'work_dirs/trm_ml_scenes')
    shutil.copy(folder / 'epoch_10.pth', folder / 'work_dirs/trm_ml_scenes')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    (folder / 'tests').symlink_to(ROOT / 'tests')
    (folder / '.venv/bin').mkdir(parents=True)
    (folder / '.venv/bin/python').write_text(
        f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / '.venv/bin/python').chmod(0o755)
    small_configs(folder / 'configs')
    for place, images in (('scenes', '12'), ('data/own', '60')):
        assert trm_ml(['make-scenes', '--out', folder / place, '--images',
                       images]) == 0
    shutil.copytree(folder / 'scenes/images', folder / 'photos')
    for path in (folder / 'photos').iterdir():
        path.rename(path.with_suffix('.jpg'))
    shutil.copy(folder / 'photos/00000.jpg', folder / 'photo.jpg')
    table = (folder / 'scenes/labels.csv').read_text(encoding='utf-8')
    for name in ('val.csv', 'labels.csv'):
        (folder / name).write_text(table.replace('.png', '.jpg'),
                                   encoding='utf-8')
    (folder / 'photos.py').write_text(
        "_base_ = 'configs/trm_ml_scenes.py'\n", encoding='utf-8')
    trees.coco(folder / 'data/coco')
    trees.voc(folder / 'data/VOCdevkit/VOC2007')
    return folder


def small_configs(folder):
    """The configs of the package. Those of whole trainings have few images
    and the built-in CLIP: the others build on them."""
    shutil.copytree(ROOT / 'configs', folder)
    words = scene_classes(0)
    for path in folder.glob('*.py'):
        real = f'_base_ = {str(ROOT / "configs" / path.name)!r}\n'
        cfg = load_config(str(ROOT / 'configs' / path.name))
        text = ''
        for split in ('train', 'val', 'test'):
            options = dict(num_workers=0, persistent_workers=False)
            if path.stem == 'trm_ml_scenes':
                dataset = dict(num_images=16)
                options['dataset'] = (dict(dataset=dataset)
                                      if split == 'train' else dataset)
            text += f'{split}_dataloader = {options!r}\n'
        if path.stem == 'trm_ml_scenes':
            pass
        elif cfg.model.backbone.type.endswith('CLIPPromptBackbone'):
            backbone = dict(weights=None)
            names = cfg.model.backbone.classes
            if names != 'dataset':
                from trm_ml_mm.labels import class_names
                # The built-in CLIP reads the names of scenes only.
                backbone['prompt_names'] = {
                    name: words[c % len(words)]
                    for c, name in enumerate(class_names(names))}
            text += ("arch = 'mini'\nimage_size = 96\n"
                     f'model = dict(backbone={backbone!r})\n')
        path.write_text(real + text, encoding='utf-8')


@pytest.mark.parametrize('page', PAGES)
def test_the_blocks_of_a_page_run(page, start, tmp_path, monkeypatch,
                                  record_property):
    record = lambda *entry: record_property('command', entry)  # noqa: E731
    if page in OWN_TESTS:
        assert (ROOT / OWN_TESTS[page]).is_file()
        for line in every_line(page):
            record(page, line, f'run by {OWN_TESTS[page]}')
        return
    folder = tmp_path / 'reader'
    shutil.copytree(start, folder, symlinks=True)
    script = [PREPARED.get(page, ':')]
    reasons = dict(NOT_HERE.get(page, {}))
    used, searches = set(), 0
    for block in blocks(PAGES[page]):
        kept = []
        for line in lines(block):
            found = next((s for s in reasons if line.startswith(s)), None)
            used.add(found)
            if found is not None:
                reason = reasons[found]
                record(page, line, reason if reason.startswith('run by')
                       else f'not run: {reason}')
            elif INSTALLED.match(line) and line.endswith(' -m pytest'):
                record(page, line, 'run by .ci/run')
            elif INSTALLED.match(line):
                record(page, line, 'run, without the installation')
                kept.append(INSTALLED.sub('', line).split('.venv/bin/')[-1])
                shutil.rmtree(folder / 'work_dirs')
            elif MANY_RUNS.match(line):
                first = line.startswith('tune ') and not searches
                searches += first
                record(page, line, 'run' if first else
                       'not run: takes hours; its settings were built')
                kept.append(line)
            else:
                record(page, line, 'run')
                kept.append(line)
        script += kept
    assert set(reasons) <= used, 'a reason without a command'
    write_files_of(page, folder)
    # A page in the browser would wait for its end; it has tests of its own.
    monkeypatch.setattr('gradio.Blocks.launch', lambda *args, **options: None)
    seen = []
    shell = Shell(folder, lambda call: before(call, folder, seen))
    shell.run('\n'.join(script))


def every_line(page):
    return [line for block in blocks(PAGES[page]) for line in lines(block)]


def write_files_of(page, folder):
    """Files that a page shows under their names."""
    text = PAGES[page].read_text(encoding='utf-8')
    for name, body in re.findall(r'`([\w.]+\.py)`:?\n+```python\n(.*?)```',
                                 text, re.S):
        (folder / name).write_text(body.replace('trm_ml_mm::', 'configs/'),
                                   encoding='utf-8')


def before(call, folder, seen) -> bool:
    """What happens between the commands; True: a command is not run."""
    if call.name == 'fill' and 'answers.json' in call.arguments:
        annotate(folder / 'tasks.json', folder / 'answers.json')
    if call.name in ('tune', 'run_grid'):
        check_settings(call.arguments)
        if call.name == 'run_grid' or seen:
            return True
        seen.append(call)
    return False


def check_settings(arguments):
    """Build every setting of a search or a grid."""
    options, name = dict(configs=[]), 'configs'
    for word in arguments:
        if word.startswith('--'):
            options[name := word] = []
        else:
            options[name].append(word)
    jobs = plan(options['configs'], list(map(setting, options['--known'])),
                [int(seed) for seed in options.get('--seeds', '0')])
    of_methods = {job.method: job for job in jobs}.values()
    for entry in options.get('--search', ['randomness.seed=0']):
        key, values = entry.split('=', 1)
        for value, job in itertools.product(values.split(','), of_methods):
            load_config(job.config, {**job.options(), **parse_options(
                [*options.get('--cfg-options', ()), f'{key}={value}'])})


def annotate(tasks, answers):
    """As a person would in Label Studio: everything asked for is absent."""
    done = json.loads(tasks.read_text(encoding='utf-8'))
    for task in done:
        asked, = (result['value']['choices']
                  for result in task.pop('predictions')[0]['result']
                  if result['from_name'] == 'asked')
        task['annotations'] = [dict(was_cancelled=False, result=[
            dict(from_name=f'class_{name}', to_name='image', type='choices',
                 value=dict(choices=['absent'])) for name in asked])]
    answers.write_text(json.dumps(done), encoding='utf-8')
