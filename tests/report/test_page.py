"""A training as one page: its figures, its names, and in a browser."""
import base64
import csv
import html
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from tests_support import ROOT, SMALL, build_small, trm_ml

from trm_ml_mm.apis import load_model
from trm_ml_mm.cli import report as command
from trm_ml_mm.datasets import Scenes
from trm_ml_mm.engine import build_runner, load_config, read_checkpoint
from trm_ml_mm.engine.checkpoint import latest_checkpoint
from trm_ml_mm.evaluation.run_record import FILE, LAST
from trm_ml_mm.features import CacheFiller, splits_to_cache
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, load_mask
from trm_ml_mm.report import judge, read_run, write_report
from trm_ml_mm.report.judged import (
    PAIRS,
    RELATED,
    confusions,
    ranked,
    relations,
    strongest,
)
from trm_ml_mm.report.page import label_rows

NAME = 'a <b> & "c"'  # of a work dir
COMMAND = "python tools/train.py x.py --work-dir 'a <b>'"


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('report')
    runner = build_small(place, {'train_dataloader.dataset.known': .5,
                                 'default_hooks.logger.interval': 1})
    runner.command = COMMAND
    runner.train()
    MMLogger._instance_dict.clear()
    (place / 'run').rename(place / NAME)
    return place / NAME


@pytest.fixture(scope='module')
def run(folder):
    return read_run(folder)


@pytest.fixture(scope='module')
def judged(run):
    return judge(run, 2)


@pytest.fixture(scope='module')
def page(run, judged, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'report.html'
    write_report([(run, judged), (run, None)], path)
    return path


def test_curves_are_those_of_the_log(run, folder):
    assert run.name == NAME
    steps, values = run.losses['loss']
    assert steps == [1, 2, 3, 4, 5, 6]  # 2 epochs of 48 images in batches of 16
    path, = folder.glob('*/vis_data/scalars.json')
    rows = list(map(json.loads, path.read_text().splitlines()))
    assert values == [row['loss'] for row in rows if 'loss' in row]
    assert run.validation['mAP'][1][-1] == run.record.validation['mAP']
    rows = list(csv.DictReader(open(folder / 'pseudo_labels.csv')))
    assert set(run.pseudo_labels) <= {
        'positive precision', 'positive recall', 'negative precision',
        'negative recall'}
    assert run.pseudo_labels['negative precision'][1][-1] == pytest.approx(
        100 * float(rows[-1]['negative_precision']))


def test_classes_are_those_of_the_test(judged, run, folder):
    path, = folder.glob('*/per_class.csv')
    for one, row in zip(judged.classes, csv.DictReader(open(path)),
                        strict=True):
        assert one.name == row['class']
        assert one.positives == int(row['positives'])
        assert f'{one.ap:.4f}' == (row['AP'] or 'nan')
    found = [one.ap for one in judged.classes if one.ap == one.ap]
    assert np.mean(found) == pytest.approx(run.record.row(LAST).metrics['mAP'],
                                           abs=1e-3)
    mask = load_mask(next(folder.glob('known_labels_*.npz')))[0]
    assert [one.known for one in judged.classes] == mask.sum(0).tolist()
    assert all(one.known_positives <= one.known for one in judged.classes)


def test_the_best_images_come_first():
    rng = np.random.RandomState(0)
    scores = rng.rand(20, 4)
    labels = rng.choice([PRESENT, ABSENT, UNKNOWN], (20, 4))
    losses = {}
    for i in range(20):
        terms = [-np.log(scores[i, c] if labels[i, c] == PRESENT
                         else 1 - scores[i, c])
                 for c in range(4) if labels[i, c] != UNKNOWN]
        if PRESENT in labels[i]:
            losses[i] = sum(terms) / len(terms)
    assert ranked(scores, labels).tolist() == sorted(losses, key=losses.get)


def test_confusions_equal_a_loop():
    rng = np.random.RandomState(0)
    scores = rng.rand(60, 5)
    labels = rng.choice([PRESENT, ABSENT, UNKNOWN], (60, 5))
    expected = []
    for a in range(5):
        for b in range(5):
            groups = [[scores[i, a] for i in range(60) if labels[i, a] ==
                       ABSENT and labels[i, b] == value]
                      for value in (PRESENT, ABSENT)]
            beside, alone = map(np.mean, groups)
            if a != b and len(groups[0]) >= 5 and beside > alone:
                expected.append((a, b, beside, alone))
    expected.sort(key=lambda row: row[3] - row[2])
    found = confusions(range(5), scores, labels)
    assert [(a, b) for a, b, *_ in found] == [
        (a, b) for a, b, *_ in expected][:PAIRS]
    np.testing.assert_allclose([row[2:] for row in found],
                               [row[2:] for row in expected][:PAIRS])


def test_label_statistics_are_those_of_the_set(run, folder):
    scenes = Scenes('train', 48, pipeline=[])
    mask = load_mask(next(folder.glob('known_labels_*.npz')))[0]
    counts = dict(present=0, absent=0, unknown=0)
    for i in range(48):
        truth = scenes.get_data_info(i)['gt_score']
        for c in range(30):
            counts['unknown' if not mask[i, c] else
                   'present' if truth[c] == PRESENT else 'absent'] += 1
    assert run.record.training_labels == counts
    rows = {name: (count, percent)
            for name, count, percent, _ in label_rows(run)}
    known = counts['present'] + counts['absent']
    assert rows['known'] == (known, pytest.approx(100 * known / (48 * 30)))
    assert rows['unknown'][0] == 48 * 30 - known
    for name, count, kind in zip(('present', 'absent'), run.pseudo_counts,
                                 ('positive', 'negative')):
        assert rows[f'pseudo-label {name}'][0] == count.given
        assert count.given == count.judged  # every truth is hidden, not lost
        if count.judged:
            assert run.pseudo_labels[f'{kind} precision'][1][-1] == (
                pytest.approx(100 * count.right / count.judged))
    assert sum(count.given for count in run.pseudo_counts) > 0


def test_a_table_without_hidden_truth_has_its_command_and_counts(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trm_ml(['make-scenes', '--out', 'own', '--images', 48, '--known',
                   .5]) == 0
    for name in ('train.csv', 'val.csv'):
        shutil.copy('own/labels.csv', f'own/{name}')
    line = ['train', 'trm_ml_csv.py', '--work-dir', 'a run', '--cfg-options',
            'data_root=own', 'arch=mini', 'image_size=96', 'epochs=2',
            'model.backbone.weights=None', 'workers=0',
            'model.head.prototypes.warmup_images=32',
            'train_dataloader.batch_size=16']
    assert trm_ml(line) == 0
    run = read_run('a run')
    assert run.record.command == (
        "trm-ml train trm_ml_csv.py --work-dir 'a run' --cfg-options "
        + ' '.join(line[5:]))
    cells = [cell for row in csv.reader(open('own/train.csv'))
             for cell in row[1:] if cell in ('0', '1', '')]
    assert run.record.training_labels == dict(
        present=cells.count('1'), absent=cells.count('0'),
        unknown=cells.count(''))
    given, judged, right = zip(*run.pseudo_counts)
    assert sum(given) > 0 and judged == right == (0, 0)
    assert [row[3] for row in label_rows(run)] == [''] * 6
    assert run.pseudo_labels == {}  # nothing to draw


def test_a_training_on_features_is_judged_on_its_images(tmp_path):
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'), SMALL)
    for split in splits_to_cache(cfg):
        CacheFiller(cfg, split, tmp_path / 'features', 0).fill(workers=0)
    build_small(tmp_path, {'feature_cache': str(tmp_path / 'features')}
                ).train()
    MMLogger._instance_dict.clear()
    run = read_run(tmp_path / 'run')
    found = judge(run, 1)
    assert found.best[0].data and len(found.related) == 2 * RELATED
    assert np.nanmean([one.ap for one in found.classes]) == pytest.approx(
        run.record.row(LAST).metrics['mAP'], abs=.5)  # features are fp16


def test_a_run_of_an_earlier_version_has_fewer_figures(folder, tmp_path):
    old = tmp_path / 'old'
    shutil.copytree(folder, old)
    content = json.loads((old / FILE).read_text())
    for name in ('command', 'training_labels'):
        content.pop(name)
    (old / FILE).write_text(json.dumps(content))
    rows = list(csv.reader(open(old / 'pseudo_labels.csv')))
    with open(old / 'pseudo_labels.csv', 'w', newline='') as file:
        csv.writer(file).writerows(row[:5] for row in rows)
    run = read_run(old)
    assert run.record.command is None and run.pseudo_counts == []
    assert run.pseudo_labels
    write_report([(run, None)], tmp_path / 'old.html')
    text = (tmp_path / 'old.html').read_text(encoding='utf-8')
    assert 'class="command"' not in text and 'pseudo-label ' not in text


def test_relations_are_those_of_the_checkpoint(judged, folder):
    state = read_checkpoint(folder / 'epoch_2.pth')['state_dict']
    weight = state['head.relations.weight'].tolist()
    names = [one.name for one in judged.classes]
    pairs = sorted(((weight[k][c], names[k], names[c])
                    for k in range(30) for c in range(30) if k != c),
                   reverse=True)
    assert [(one.weight, one.if_present, one.then) for one in judged.related
            ] == [*pairs[:RELATED], *pairs[-RELATED:]]
    scale = load_config(str(folder / 'trm_ml_scenes.py')).model.head.relations
    assert all(one.logit == pytest.approx(scale * one.weight)
               for one in judged.related)


def test_co_occurrence_equals_a_loop():
    rng = np.random.RandomState(0)
    weight = rng.randn(4, 4)
    labels = rng.choice([PRESENT, ABSENT, UNKNOWN], (60, 4))
    found = strongest('abcd', weight, 2., labels)
    expected = [(weight[k, c], k, c) for k in range(4) for c in range(4)
                if k != c]
    # There are fewer pairs than are listed: each stands there once.
    assert [one.weight for one in found] == sorted(
        (value for value, *_ in expected), reverse=True)
    for one in found:
        k, c = 'abcd'.index(one.if_present), 'abcd'.index(one.then)
        rows = [row for row in labels if row[k] == PRESENT
                and row[c] != UNKNOWN]
        assert one.images == len(rows)
        assert one.together == sum(row[c] == PRESENT for row in rows)
        known = [row for row in labels if row[c] != UNKNOWN]
        assert one.usual == pytest.approx(
            100 * np.mean([row[c] == PRESENT for row in known]))


def test_a_training_set_that_is_gone_leaves_the_relations(run, judged):
    cfg = load_config(str(run.config))
    cfg.train_dataloader.dataset.dataset = dict(
        type='trm_ml_mm.CSVMultiLabel', data_root='gone',
        ann_file='train.csv')
    head = load_model(latest_checkpoint(run.folder)).model.head
    found = relations([one.name for one in judged.classes], head, cfg)
    assert [one.weight for one in found] == [
        one.weight for one in judged.related]
    assert {one.images for one in found} == {0}
    assert relations((), None, cfg) == []


def test_the_page_stands_alone_and_escapes_names(page, judged):
    text = page.read_text(encoding='utf-8')
    assert NAME not in text and html.escape(NAME) in text.replace(
        '&#34;', '&quot;')
    assert COMMAND not in text and html.escape(COMMAND).replace(
        '&#x27;', '&#39;') in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    assert not re.findall(r'url\((?!#)', text) and '@import' not in text
    assert text.count('data:image/jpeg') == 4
    assert page.stat().st_size < 5e6
    one = judged.related[0]
    assert (f'<td>{one.if_present}</td><td>{one.then}</td>'
            f'<td>{one.weight:+.3f}</td>') in text
    for one in judged.classes:
        assert f'<option>{one.name}</option>' in text


def test_a_head_without_maps_shows_plain_images(tmp_path):
    build_runner(str(ROOT / 'configs/baselines/text_image.py'),
                 str(tmp_path / 'run'), {
                     **{key: value for key, value in SMALL.items()
                        if 'prototypes' not in key},
                     'experiment_name': 'no maps', 'train_cfg.max_epochs': 1,
                 }).train()
    MMLogger._instance_dict.clear()
    found = judge(read_run(tmp_path / 'run'), 1)
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(
        found.best[0].data), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (96, 96, 3)
    assert found.best[0].right or found.best[0].missed
    # The head of this config learns no relations.
    assert found.related == []


DRIVER = '''
<script>
window.errors = [];
window.onerror = message => { errors.push(message); };
</script>
'''
STEPS = '''
<script>
window.onload = () => {
  const rows = () => [...document.querySelectorAll('#classes tbody tr')].map(
      row => row.children[1].textContent);
  const button = document.querySelectorAll('#classes th button')[1];
  const found = {};
  button.click(); found.down = rows(); button.click(); found.up = rows();
  const chooser = document.querySelector('.chooser');
  chooser.selectedIndex = 2; chooser.onchange();
  found.shown = [...document.querySelector('.charts').children].map(
      chart => chart.offsetHeight > 0);
  document.querySelector('figure button').click();
  found.open = document.querySelector('dialog').open;
  found.width = [document.documentElement.scrollWidth, window.innerWidth];
  found.requests = performance.getEntriesByType('resource').map(
      entry => entry.name).filter(name => !name.startsWith('data:'));
  found.errors = window.errors;
  document.body.textContent = 'FOUND' + JSON.stringify(found) + 'END';
};
</script>
'''


@pytest.mark.skipif(shutil.which('chromium') is None,
                    reason='needs Chromium (Debian: apt install chromium)')
@pytest.mark.parametrize('width', [420, 1280])
def test_in_a_browser(page, tmp_path, width):
    text = page.read_text(encoding='utf-8')
    (tmp_path / 'driven.html').write_text(
        text.replace('<body>', '<body>' + DRIVER, 1).replace(
            '</body>', STEPS + '</body>', 1), encoding='utf-8')
    done = subprocess.run(
        ['chromium', '--headless', '--no-sandbox', '--disable-gpu',
         '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync',
         f'--window-size={width},900', f'--user-data-dir={tmp_path}/profile',
         '--dump-dom', (tmp_path / 'driven.html').as_uri()],
        text=True, capture_output=True, timeout=120)
    found = json.loads(html.unescape(
        re.search('FOUND(.*)END</body>', done.stdout, re.S)[1]))
    assert found['errors'] == [] and found['requests'] == []
    values = [float(v) for v in found['down'] if v != '-']
    assert values == sorted(values, reverse=True) and len(values) > 5
    values = [float(v) for v in found['up'] if v != '-']
    assert values == sorted(values)
    assert found['shown'] == [c == 2 for c in range(30)]
    assert found['open'] is True
    assert found['width'][0] <= found['width'][1]  # nothing to scroll across


def test_the_command(folder, capsys, monkeypatch, tmp_path):
    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['report', *map(str, arguments)])
        try:
            command.main()
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    out = tmp_path / 'r.html'
    code, said = call(folder, '--no-model', '--out', out)
    assert code == 0 and f'Written: {out}' in said
    assert 'Best images' not in out.read_text(encoding='utf-8')
    code, said = call(tmp_path)
    assert code == 2 and 'has no results yet' in said
    code, said = call(tmp_path / 'none')
    assert code == 2 and 'does not exist' in said
    broken = tmp_path / 'broken'
    shutil.copytree(folder, broken)
    path, = broken.glob('*/vis_data/scalars.json')
    path.write_text(path.read_text()[:-9])
    code, said = call(broken, '--no-model')
    assert code == 2 and 'is damaged' in said and 'Traceback' not in said
