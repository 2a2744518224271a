"""The grid: its tables, its manifests, and what a kill leaves."""
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time

import pytest
from rich.console import Console
from tests_support import ROOT

from trm_ml_mm.experiments.manifest import FILE
from trm_ml_mm.experiments.plan import Job, plan
from trm_ml_mm.experiments.run import run_grid
from trm_ml_mm.experiments.tables import save_tables, table
from trm_ml_mm.utils.screen import Screen

TINY = ['train_dataloader.dataset.dataset.num_images=48',
        'val_dataloader.dataset.num_images=20',
        'test_dataloader.dataset.num_images=40', 'train_cfg.max_epochs=3']


TINY_CONFIG = '''
train_dataloader = dict(dataset=dict(type='trm_ml_mm.PartialLabelDataset'))
'''


def rows():
    return [
        dict(method=m, known=k, seed=s, mAP=10 * i + 3 * j + s * s)
        for i, m in enumerate(('ours', 'baseline'))
        for j, k in enumerate((.1, .5, 'single_positive')) for s in (0, 1, 2)
    ]


def test_cells_are_means_and_deviations_over_seeds():
    lines = table(rows())
    assert lines[0] == ['method', '10%', '50%', 'single positive', 'average']
    assert [line[0] for line in lines[1:]] == ['ours', 'baseline']
    mean, deviation = lines[2][2].split(' ± ')
    values = [13., 14., 17.]
    assert float(mean) == pytest.approx(statistics.mean(values), abs=.005)
    assert float(deviation) == pytest.approx(statistics.stdev(values),
                                             abs=.005)
    # Over the proportions of each seed, without single positive.
    assert lines[1][4] == '3.17 ± 2.08'


def test_a_missing_run_leaves_a_gap_and_no_average_of_it():
    some = [r for r in rows() if (r['method'], r['known'], r['seed']) !=
            ('ours', .5, 1)]
    lines = table(some)
    assert lines[1][2] == '5.00 ± 2.83 (n=2)'
    assert lines[1][4] == '3.50 ± 2.83 (n=2)'  # seeds 0 and 2
    assert table([r for r in some if r['known'] != .5 or
                  r['method'] == 'baseline'])[1][2] == '-'


def test_variants_have_places_of_their_own():
    job = Job('m', 'c', .1, 0, ('scene_set=1', ),
              ('a.b.weight=0.1', 'a.c=1'))
    other = job._replace(variant=('a.b.weight=1.1', 'a.c=1'))
    assert job.work_dir('o') != other.work_dir('o')
    assert job.work_dir('o').parts[-4:] == ('scene_set=1', 'weight=0.1',
                                            'c=1', 'seed0')
    assert job.options()['a.b.weight'] == '0.1'
    assert job.options()['scene_set'] == '1'


def test_every_run_has_its_gpu_to_itself_and_no_fork(tmp_path, monkeypatch):
    """CUDA does not survive a fork, and chooses its device at its first use."""
    config, train = tmp_path / 'x.py', tmp_path / 'train.py'
    config.write_text(TINY_CONFIG)
    train.write_text(textwrap.dedent('''
        import os, sys, time
        from multiprocessing import get_start_method, process
        from pathlib import Path
        import torch
        time.sleep(2)  # so that the two are at work together
        folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
        (folder / 'seen').write_text(' '.join([
            os.environ['CUDA_VISIBLE_DEVICES'],
            str(torch.cuda._is_in_bad_fork()), get_start_method()]))
    '''))
    monkeypatch.setattr('trm_ml_mm.experiments.run._gpus',
                        lambda: ['5', 'MIG-7'])
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5,MIG-7')
    jobs = plan([str(config)], [.3, .5], [0])
    run_grid(jobs, tmp_path / 'o', train)
    assert {(job.work_dir(tmp_path / 'o') / 'seen').read_text()
            for job in jobs} == {'5 False spawn', 'MIG-7 False spawn'}
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '5,MIG-7'


def test_a_terminal_shows_how_many_runs_are_left(tmp_path, monkeypatch):
    screen = Screen()
    screen.console = Console(file=io.StringIO(), force_terminal=True,
                             width=60)
    monkeypatch.setattr(Screen, 'current', screen)
    script = tmp_path / 'ends.py'
    script.write_text('import sys; sys.exit(1)')
    config = tmp_path / 'tiny.py'
    config.write_text(TINY_CONFIG)
    run_grid(plan([str(config)], [.1, .5], [0]), tmp_path / 'runs', script,
             processes=1)
    shown = screen.console.file.getvalue()
    assert all(f'{done}/2' in shown for done in range(3))


def test_tables_are_saved(tmp_path):
    text = save_tables(rows(), tmp_path)
    cells = [cell.strip() for cell in next(
        line for line in text.splitlines() if 'ours' in line).split('|')]
    assert cells[1:3] == ['ours', '1.67 ± 2.08']
    assert (tmp_path / 'table.md').read_text() == text
    assert json.loads((tmp_path / 'rows.json').read_text()) == rows()
    assert len((tmp_path / 'rows.csv').read_text().splitlines()) == 19


def test_places_are_not_mixed_up(tmp_path):
    config = tmp_path / 'x.py'
    config.write_text(TINY_CONFIG)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/x.py').write_text(TINY_CONFIG)
    with pytest.raises(ValueError, match='same file name'):
        plan([str(config), str(tmp_path / 'b/x.py')], [.1], [0])
    true = tmp_path / 'train.py'
    true.write_text('')
    out = tmp_path / 'out'

    def run(options=(), known=(.1, ), path=config):
        return run_grid(plan([str(path)], known, [0]), out, true, 1, options)

    assert run(['a=1']) == []
    with pytest.raises(ValueError, match='take another --out'):
        run(['a=2'], (.5, .1))
    assert run(['a=1'], (.5, .1)) == []  # a refused start leaves nothing
    with pytest.raises(ValueError, match='take another --out'):
        run(['a=2'], (.7, ))  # its row would stand in the same table
    run(['a=1'], path=tmp_path / 'b/x.py')  # the same config elsewhere
    with pytest.raises(ValueError, match='override what the grid varies'):
        run(['train_dataloader.dataset.known=.9'])
    with pytest.raises(ValueError, match='without cached features'):
        run_grid(plan([str(config)], [.1], [0]), out, true, 1, ['a=1'],
                 tmp_path)
    config.write_text(TINY_CONFIG + 'log_level = "INFO"')
    for known in ((.1, ), (.7, )):
        with pytest.raises(ValueError, match='another state of its config'):
            run(['a=1'], known)
    config.write_text(TINY_CONFIG.replace('PartialLabelDataset', 'Scenes'))
    with pytest.raises(ValueError, match='wrap it in'):
        run()


def test_rows_of_earlier_calls_stay_in_the_table(tmp_path):
    config = tmp_path / 'x.py'
    config.write_text(TINY_CONFIG)
    train = tmp_path / 'train.py'  # writes what a run would, and no mAP at 0.5
    train.write_text(textwrap.dedent('''
        import sys
        from trm_ml_mm.evaluation.run_record import (
            LAST, ResultRow, RunRecord, write_record)
        known = float(next(a for a in sys.argv if 'known=' in a).split('=')[1])
        metrics = dict(CF1=known)
        metrics.update({} if known == .5 else dict(mAP=100 * known))
        write_record(
            sys.argv[sys.argv.index('--work-dir') + 1],
            RunRecord('Head', 'x.py', 0, None, {}, 'code', dict(mAP=1.),
                      [ResultRow(LAST, metrics, unit='epoch', number=1)]))
    '''))
    first = run_grid(plan([str(config)], [.3], [0]), tmp_path / 'o', train)
    second = run_grid(plan([str(config)], [.5], [0]), tmp_path / 'o', train)
    assert [row['known'] for row in first] == [.3]
    assert [row['known'] for row in second] == [.5, .3]
    assert second[1]['mAP'] == 30 and 'mAP' not in second[0]
    # A search in the same place adds no rows to its method.
    search = [job._replace(variant=('lr=1', ))
              for job in plan([str(config)], [.5], [1])]
    for job in search:
        job.work_dir(tmp_path / 'o').mkdir(parents=True)
    assert len(run_grid(search, tmp_path / 'o', train)) == 3
    again = run_grid(plan([str(config)], [.5], [0]), tmp_path / 'o', train)
    assert again == second


def test_runs_of_an_earlier_version_are_refused(tmp_path):
    """Their manifests have no format, and their rows other titles."""
    config = tmp_path / 'x.py'
    config.write_text(TINY_CONFIG)
    job, = plan([str(config)], [.1], [0])
    out = tmp_path / 'o'
    folder = out / 'x/0.1/scenes0/seed0'  # where that version put its runs
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(dict(
        method='x', config='x.py', known=.1, seed=0, scene_set=0, variant=[],
        options=[], content='0', features=False, code='399fbec')))
    with pytest.raises(ValueError, match='of another version of trm_ml_mm'):
        run_grid([job], out, 'train.py')
    (folder / FILE).unlink()
    own = job.work_dir(out)
    own.mkdir(parents=True)
    (own / 'test_results.json').write_text(json.dumps(dict(
        known_labels=None, seed=0, validation={},
        rows=[{'method': 'Head, last epoch', 'epoch': 1, 'mAP': 50.}])))
    with pytest.raises(ValueError, match='written by another version'):
        run_grid([job], out, 'train.py')


def grid(out):
    return [sys.executable, 'tools/run_grid.py', 'configs/trm_ml_scenes.py',
            '--known', '0.3', 'single_positive', '--seeds', '0',
            '--out', str(out), '--cfg-options', *TINY]


def test_a_killed_grid_ends_with_the_same_table(tmp_path):
    straight, killed = tmp_path / 'straight', tmp_path / 'killed'
    subprocess.run(grid(straight), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(grid(killed), cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT,
                               start_new_session=True)
    deadline = time.time() + 120
    while not list(killed.rglob('epoch_1.pth')):
        assert time.time() < deadline and process.poll() is None
        time.sleep(.05)
    os.killpg(process.pid, signal.SIGKILL)  # the grid and its runs
    process.wait()
    done = len(list(killed.rglob('test_results.json')))
    assert done < 2
    again = subprocess.run(grid(killed), cwd=ROOT, check=True,
                           capture_output=True, text=True)
    assert '2 of 2 runs' in again.stdout
    for name in ('table.md', 'rows.json'):
        assert (killed / name).read_text() == (straight / name).read_text()
