"""Follow docs/extending.md to the letter."""
import math
import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, List, NamedTuple

import torch
from mmengine.config import Config
from tests_support import ROOT

from trm_ml_mm.engine import read_checkpoint
from trm_ml_mm.evaluation import RunRecord, read_record
from trm_ml_mm.evaluation.run_record import LAST
from trm_ml_mm.models.towers import joint_width

PAGE = ROOT / 'docs/extending.md'
FIRST = 'Before you start'  # the only section that the others need
PLACE = '/path/to/trm_ml_mm'  # what the reader replaces
BLOCK = re.compile(
    r'(?:^ *`(?P<file>[^`\n]+)`:\n\n)?'
    r'^(?P<indent> *)```(?P<kind>\w+)\n(?P<text>.*?)^(?P=indent)```$',
    re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """What a reader of one section does, and then sees."""

    files: Dict[str, str]
    commands: List[str]
    output: List[str]


def read_page() -> Dict[str, Section]:
    """The sections of the page by their titles."""
    sections = {}
    for part in PAGE.read_text(encoding='utf-8').split('\n## ')[1:]:
        title, _, body = part.partition('\n')
        section = sections[title] = Section({}, [], [])
        for block in BLOCK.finditer(body):
            text = textwrap.dedent(block['text'])
            if block['file']:
                section.files[block['file']] = text
            elif block['kind'] == 'bash':
                section.commands.append(text)
            else:
                assert block['kind'] == 'text', f'{title}: {text}'
                section.output.extend(text.splitlines())
        assert body.count('```') == 2 * len(BLOCK.findall(body)), title
    return sections


def run_section(folder, first: Section, section: Section) -> str:
    """Run the commands of a section in the reader's folder, as one shell."""
    # "python" is this interpreter. Settings of the first section hold.
    exports = re.findall('^export .*$', '\n'.join(first.commands), re.M)
    script = '\n'.join([f'python() {{ "{sys.executable}" "$@"; }}', *exports,
                        *section.commands])
    assert script.count(PLACE) == 1
    script = script.replace(PLACE, str(ROOT))
    result = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', script], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


def words(text: str) -> str:
    """A text without what may differ: digits, frames and widths."""
    text = re.sub(r'\d+(\.\d+)?', '#', text)
    return ' '.join(re.sub(r'[\u2500-\u257f]', ' ', text).split())


def follow_page(folder) -> None:
    """Do what the page says, and check that its outputs come."""
    page = read_page()
    for section in page.values():
        for name, text in section.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
    first = page[FIRST]
    outputs = {FIRST: run_section(folder, Section({}, [], []), first)}
    others = [title for title in page if title != FIRST]
    with ThreadPoolExecutor(2) as pool:  # most of the time is imports
        outputs.update(zip(others, pool.map(
            lambda title: run_section(folder, first, page[title]), others)))
    for title, section in page.items():
        shown = words(outputs[title])
        for line in section.output:
            assert words(line) in shown, f'{title}: {line}\n{outputs[title]}'


class Run(NamedTuple):
    """What a training left in its work dir."""

    record: RunRecord
    cfg: Config
    state: dict  # of the checkpoint

    @property
    def mean_ap(self) -> float:
        return self.record.row(LAST).metrics['mAP']


def finished(work_dir) -> Run:
    record = read_record(work_dir)
    assert record is not None, f'{work_dir.name} has not finished'
    return Run(
        record,
        Config.fromfile(next(work_dir.glob('*.py')),
                        import_custom_modules=False),
        read_checkpoint(next(work_dir.glob('epoch_*.pth')))['state_dict'])


def test_a_reader_gets_every_component(tmp_path):
    """One test, so that the page is followed once."""
    follow_page(tmp_path)
    runs = {path.name: finished(path)
            for path in (tmp_path / 'work_dirs').iterdir()}
    assert sorted(runs) == ['partial_bce', 'rn50', 'shapes', 'top_locations']
    for name, run in runs.items():
        assert math.isfinite(run.mean_ap)
        assert name == 'rn50' or run.mean_ap > 50  # its weights are random
    check_data_set(tmp_path, runs['shapes'])
    check_head(runs['top_locations'])
    check_loss(runs['partial_bce'], runs['shapes'])
    check_tower(runs['rn50'], runs['shapes'])


def check_data_set(folder, run):
    for dataset in (run.cfg.train_dataloader.dataset.dataset,
                    run.cfg.val_dataloader.dataset,
                    run.cfg.test_dataloader.dataset):
        assert dataset.type == 'TextLabels'
    lines = (folder / 'train.txt').read_text().splitlines()
    names = [name for line in lines
             for name in line.split(':')[1].split(',') if name.strip()]
    unknown = sum('?' in name for name in names)
    assert 0 < unknown < len(names)
    images, positives, negatives = (
        int(run.state[f'head.label_statistics.{name}'].sum())
        for name in ('images', 'positives', 'negatives'))
    assert images == len(lines)
    assert positives == len(names) - unknown
    assert negatives == len(lines) * len(run.cfg.labels.classes) - len(names)


def check_head(run):
    assert run.record.head == 'TopLocationsHead'
    assert not any('region' in key for key in run.state)


def check_loss(run, other):
    assert run.record.head == other.record.head == 'TextRegionMatchingHead'
    assert run.cfg.model.head.loss == dict(type='PartialBCELoss')
    assert run.record.rows != other.record.rows  # it changes the result


def check_tower(run, other):
    assert run.cfg.model.backbone.weights == 'rn50.pt'
    offset = run.state['head.region.query_offset']
    assert offset.shape[-1] == joint_width('RN50')
    (tower, names), (other_tower, other_names) = (
        r.state['backbone.text.identity'].split(32) for r in (run, other))
    assert not torch.equal(tower, other_tower)
    assert torch.equal(names, other_names)
