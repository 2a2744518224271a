"""A proposed command can be pasted into a shell, and means what was given."""
import argparse
import runpy
import shlex
import sys

import pytest
from tests_support import ROOT

from trm_ml_mm.cli import cache_features, main
from trm_ml_mm.cli.arguments import add_config, parse
from trm_ml_mm.cli.main import COMMANDS
from trm_ml_mm.cli.next_command import next_command

SIZES = [f'{split}_dataloader.dataset{inner}.num_images=8'
         for split, inner in (('train', '.dataset'), ('val', ''),
                              ('test', ''))]


def parsed(words):
    parser = argparse.ArgumentParser()
    add_config(parser)
    return parse(parser, words)


@pytest.mark.parametrize('given', [
    ['epochs=20', 'data_root=/my photos/$HOME/'],
    ['model.backbone.prompt.context=a photo of "a"', "x=it's"],
    ['ignore_columns=a,b', 'data.scale=(224,224)', 'a=b=c'],
])
def test_options_come_back_as_they_were_given(given):
    """Through the shell's rules of quotation, and the parser again."""
    args = parsed(['my config.py', '--cfg-options', *given])
    line = next_command('train', args.config, given=args.given_options)
    words = shlex.split(line)
    assert words == ['python', 'tools/train.py', 'my config.py',
                     '--cfg-options', *given]
    assert parsed(words[2:]).cfg_options == args.cfg_options


def test_the_last_of_equal_options_wins():
    args = parsed(['c.py', '--cfg-options', 'a=1', 'b=2', '--cfg-options',
                   'a=3'])
    assert args.cfg_options == dict(a=3, b=2)
    assert next_command('test', 'c.py', given=args.given_options, options=dict(
        b='new', c='4')) == (
        'python tools/test.py c.py --cfg-options a=3 b=new c=4')
    assert next_command('train', 'c.py') == 'python tools/train.py c.py'
    assert parsed(['c.py']).given_options == []


def test_the_console_command_proposes_itself(monkeypatch, tmp_path, capsys):
    names = {}
    monkeypatch.setattr('trm_ml_mm.cli.next_command.COMMAND_NAMES', names)
    monkeypatch.setattr(sys, 'argv', [
        'trm-ml', 'inspect', 'trm_ml_scenes', '--split', 'test', '--out',
        str(tmp_path), '--cfg-options', *SIZES])
    main.main()
    assert capsys.readouterr().out.splitlines()[-1] == (
        f'Nothing to mend. Train: trm-ml train trm_ml_scenes --cfg-options '
        f'{" ".join(SIZES)}')
    for name, script, _ in COMMANDS:
        assert next_command(script, 'c.py') == f'trm-ml {name} c.py'
        assert (ROOT / f'tools/{script}.py').is_file()


def test_the_proposed_training_uses_the_features(tmp_path, capsys,
                                                 monkeypatch):
    monkeypatch.chdir(ROOT)
    given = [*SIZES, f'work_dir={tmp_path}/my work', 'epochs=1',
             'feature_cache=elsewhere']
    cache_features.main.__wrapped__([
        'trm_ml_scenes', '--out', f'{tmp_path}/my features', '--workers', '0',
        '--cfg-options', *given])
    line = capsys.readouterr().out.splitlines()[-1]
    command = line.removeprefix('Train from them: ')
    words = shlex.split(command)
    assert words[-1] == f'feature_cache={tmp_path}/my features'
    assert not [word for word in words if 'elsewhere' in word]
    monkeypatch.setattr(sys, 'argv', words[1:])
    runpy.run_path(words[1], run_name='__main__')
    path = tmp_path / 'my work/epoch_1.pth'
    assert path.is_file()
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Predict: python tools/predict.py IMAGE --checkpoint '{path}'")
