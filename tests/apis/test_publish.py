"""Files to hand over."""
import hashlib
import re

import numpy as np
import pytest
import torch
from test_description import FEW
from test_inferencer import run as run_command
from tests_support import build_small

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.apis.publish import publish_model
from trm_ml_mm.cli import publish_model as command


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('publish')
    build_small(folder, {**FEW, 'model.backbone.prompt.learnable': True}
                ).train()
    return folder / 'run/epoch_1.pth'


@pytest.mark.parametrize('bake', [False, True])
def test_a_release_predicts_the_same_and_has_no_training_in_it(
        checkpoint, tmp_path, bake):
    release = publish_model(checkpoint, tmp_path / 'out', bake=bake)
    content = torch.load(release.file, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert 'cfg' not in content['meta']
    assert release.file.stat().st_size < checkpoint.stat().st_size / 2
    digest = hashlib.sha256(release.file.read_bytes()).hexdigest()
    assert release.sha256 == digest
    assert release.file.name == f'run-{digest[:8]}.pth'
    image = np.random.RandomState(0).randint(0, 255, (50, 60, 3), np.uint8)
    (one, ), (other, ) = (MultiLabelInferencer(path)(image, maps=True)
                          for path in (checkpoint, release.file))
    for a, b in zip(one['labels'], other['labels']):
        assert (a['name'], a['score']) == (b['name'], b['score'])
        assert np.array_equal(a['map'], b['map'])
    context = [key for key in content['state_dict'] if 'context' in key]
    assert bool(context) != bake  # learned prompts, or what they gave


def test_the_card_says_what_it_is(checkpoint, tmp_path):
    release = publish_model(checkpoint, tmp_path / 'out', 'shapes',
                            licence='apache-2.0')
    card = release.card.read_text()
    assert card.startswith('---\n') and 'license: apache-2.0\n' in card
    assert release.sha256 in card and release.file.name in card
    classes = [line for line in card.splitlines() if line.endswith('0.500 |')]
    assert len(classes) == 30
    meta = torch.load(release.file, weights_only=True)
    counts = meta['state_dict']['head.label_statistics.positives'].sum()
    assert f'({counts:,} positive)' in card
    assert sum(int(line.split('|')[3]) for line in classes) == counts
    rows = [line for line in card.splitlines() if '| test set |' in line]
    assert len(rows) == 4 and re.search(r'last epoch \| test set \| \d', card)
    assert '{{' not in card and '\n\n\n' not in card


def test_no_folder_of_this_machine_is_in_it(checkpoint, tmp_path):
    from trm_ml_mm.models.towers.mini import MINI_CLIPS
    path = tmp_path / 'private' / 'clip.pth'
    path.parent.mkdir()
    path.write_bytes(MINI_CLIPS['mini'].read_bytes())
    saved = torch.load(checkpoint, weights_only=True)
    saved['meta']['trm_ml_mm']['model']['backbone']['weights'] = str(path)
    torch.save(saved, tmp_path / 'a.pth')
    release = publish_model(tmp_path / 'a.pth', tmp_path / 'out')
    assert b'private' not in release.file.read_bytes()
    assert 'private' not in release.card.read_text()
    with pytest.raises(FileNotFoundError, match='not at hand'):
        MultiLabelInferencer(release.file)
    path.rename(release.file.with_name('clip.pth'))
    MultiLabelInferencer(release.file)


def test_the_command(checkpoint, tmp_path, capsys, monkeypatch):
    out = run_command(capsys, monkeypatch, checkpoint, '--out',
                      tmp_path / 'out', main=command.main)
    assert 'README.md' in out
    again = run_command(capsys, monkeypatch, checkpoint, '--out',
                        tmp_path / 'out', code=2, main=command.main)
    assert 'give a new folder' in again and again.count('\n') == 1
