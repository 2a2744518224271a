"""Every command of the pages on using a model is run, as it stands there."""
import json
import re
import runpy
import shlex
import shutil
import sys

import pytest
from tests_support import ROOT, build_small, trm_ml

# What each page starts from: files of this test under the names that the page
# takes for granted.
PAGES = {
    'use_model': ('epoch_10.pth', 'photo.jpg', 'photos'),
    'calibration': ('epoch_10.pth', 'photos', 'val.csv'),
    'fill_labels': ('epoch_10.pth', 'photos', 'labels.csv'),
    'annotation': ('epoch_10.pth', 'photos', 'labels.csv'),
    'export': ('epoch_10.pth', 'photos', 'photos.py'),
    'report': ('work_dirs', ),
    'demo': ('epoch_10.pth', 'photos', 'labels.csv'),
}
CONFIG = '''
_base_ = 'trm_ml_mm::trm_ml_scenes.py'
test_dataloader = dict(num_workers=0, dataset=dict(num_images=24))
'''


def commands(page):
    """The lines of a page that call trm-ml, whole."""
    text = (ROOT / f'docs/{page}.md').read_text()
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', text, re.M | re.S)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [line.strip() for line in lines
            if line.strip().startswith('trm-ml ')]


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """A trained model, and scenes as photos."""
    folder = tmp_path_factory.mktemp('start')
    build_small(folder, {'train_cfg.max_epochs': 1}).train()
    shutil.copy(folder / 'run/epoch_1.pth', folder / 'epoch_10.pth')
    for name in ('trm_ml_scenes', 'text_pixel'):
        shutil.copytree(folder / 'run', folder / 'work_dirs' / name)
    assert trm_ml(['make-scenes', '--out', folder / 'scenes', '--images',
                   '8']) == 0
    shutil.copytree(folder / 'scenes/images', folder / 'photos')
    for path in (folder / 'photos').iterdir():
        path.rename(path.with_suffix('.jpg'))
    shutil.copy(folder / 'photos/00000.jpg', folder / 'photo.jpg')
    table = (folder / 'scenes/labels.csv').read_text(encoding='utf-8')
    for name in ('val.csv', 'labels.csv'):
        (folder / name).write_text(table.replace('.png', '.jpg'),
                                   encoding='utf-8')
    (folder / 'photos.py').write_text(CONFIG, encoding='utf-8')
    return folder


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


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_of_a_page_run(page, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in PAGES[page]:
        (shutil.copytree if (start / name).is_dir() else shutil.copy)(
            start / name, tmp_path / name)
    # A page in the browser would wait for its end; it has tests of its own.
    monkeypatch.setattr('gradio.Blocks.launch', lambda *args, **options: None)
    found = commands(page)
    assert found
    for line in found:
        if 'answers.json' in line:
            annotate(tmp_path / 'tasks.json', tmp_path / 'answers.json')
        assert trm_ml(shlex.split(line)[1:]) == 0, line


def test_no_page_is_left_out():
    pages = {p.stem for p in (ROOT / 'docs').glob('*.md')
             if '\ntrm-ml ' in p.read_text()}
    assert pages == {*PAGES, 'own_photos'}  # which has a test of its own


def tool_lines():
    """Every line of README and docs that calls a script of tools/, and the
    page."""
    for path in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
        text = path.read_text(encoding='utf-8').replace('\\\n', ' ')
        for block in re.findall(r'^ *```bash\n(.*?)^ *```', text, re.M | re.S):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                place = next((i for i, word in enumerate(words)
                              if word.startswith('tools/')), None)
                if place is not None and '$@' not in words:  # a function
                    yield path.name, words[place], words[place + 1:]


def test_every_command_of_a_script_could_be_given(monkeypatch):
    """Scripts that the pages call exist and know the options that they are
    given. (It runs none of them: some take hours.)"""
    pages = set()
    for page, script, arguments in tool_lines():
        path = ROOT / script
        assert path.is_file(), (page, script)
        pages.add(page)
        if path.suffix != '.py' or path.parent.name == 'benchmarks':
            continue
        main = runpy.run_path(str(path), run_name='a tool')['main']
        parse_args = main.__globals__.get('parse_args') or (
            main.__wrapped__.__globals__['parse_args'])
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        try:
            parse_args()
        except SystemExit:
            pytest.fail(f'{page}: {script} {shlex.join(arguments)}')
    assert {'README.md', 'index.md', 'benchmarks.md', 'options.md',
            'many_gpus.md', 'protocols.md'} <= pages
