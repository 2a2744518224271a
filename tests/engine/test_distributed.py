import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tests_support import ROOT, free_port, ranks, run

from trm_ml_mm.engine import (
    build_runner,
    init_distributed,
    read_checkpoint,
)


def test_a_step_on_two_ranks_equals_one_on_the_joined_batch():
    out = ranks('tests/ranks.py', 2, 'one_step_equals_joined_batch')
    assert out.count('plain: values agree') == 2
    assert out.count('aligned: values agree') == 2


def test_the_start_does_not_depend_on_the_number_of_ranks():
    out = ranks('tests/ranks.py', 2, 'uneven_ranks_start_alike')
    assert out.count('the start agrees') == 2


@pytest.mark.parametrize('count', [2, 3])
def test_metrics_do_not_depend_on_the_number_of_ranks(count):
    out = ranks('tests/ranks.py', count, 'metrics_agree')
    assert out.count('agree') == count


CASES = {'even': (.3, 64), 'few labels': (.02, 64), 'uneven': (.3, 50)}


def trained_on_ranks(folder):
    """{number of ranks: {case: learned state after 20 steps}}."""
    configs = []
    for case, (known, images) in CASES.items():
        configs.append(folder / f'{case.replace(" ", "_")}.py')
        configs[-1].write_text(textwrap.dedent(f'''
            _base_ = [{str(ROOT / 'configs/trm_ml_scenes.py')!r}]
            custom_hooks = [
                dict(type='trm_ml_mm.PlainCheckpointHook'),
                dict(type='trm_ml_mm.EpochSeedHook'),
                dict(type='trm_ml_mm.PartialLabelHook'),
                dict(type='trm_ml_mm.FiniteLossHook'),
                dict(type='EMAHook'),
            ]
            model = dict(head=dict(prototypes=dict(warmup_images=64)))
            train_dataloader = dict(num_workers=0, dataset=dict(
                known={known}, dataset=dict(num_images={images}, pipeline=[
                    dict(type='trm_ml_mm.RenderScene'),
                    dict(type='PackInputs')])))
            val_dataloader = val_cfg = val_evaluator = None
            test_dataloader = test_cfg = test_evaluator = None
            default_hooks = dict(checkpoint=dict(save_best=None))
            train_cfg = dict(max_epochs=5)
        '''))
    found = {}
    for count in (1, 2, 4):
        work_dir = folder / f'{count}'
        ranks('tests/ranks.py', count, 'train', work_dir, *configs)
        found[count] = {}
        for case, config in zip(CASES, configs):
            saved = read_checkpoint(work_dir / config.stem / 'epoch_5.pth')
            assert 'head.prototypes.visual' in saved['state_dict']
            found[count][case] = {
                f'{part} {name}': value.nan_to_num().double()
                for part in ('state_dict', 'ema_state_dict')
                for name, value in saved[part].items()}
    return found


def test_a_training_does_not_depend_on_the_number_of_ranks(tmp_path):
    """Weights, prototypes, history and EMA after 20 steps. With few labels,
    some ranks see batches without any known one. The uneven set is padded, so
    two and four ranks see some images twice: then nothing hangs and all is
    finite."""
    alone, *others = trained_on_ranks(tmp_path).values()
    for case in CASES:
        for count, other in zip((2, 4), others):
            assert other[case].keys() == alone[case].keys()
            for name, value in other[case].items():
                assert value.isfinite().all(), name
                # Scores in the history are logits: ten times as large.
                bound = 1e-3 if name.endswith('history') else 1e-5
                gap = (alone[case][name] - value).abs().max()
                assert case == 'uneven' or gap < bound, (
                    f'{case}, {count} ranks, {name}: {gap}')


def test_a_frozen_rank_is_not_waited_for():
    out = ranks('tests/ranks.py', 2, 'a_frozen_rank_is_not_waited_for')
    assert 'gave up: True, early: True' in out


@pytest.fixture
def trained_on_two(tmp_path):
    """A config of the small run on two ranks, and a check of what it left."""
    config = tmp_path / 'small.py'
    config.write_text(textwrap.dedent(f'''
        _base_ = [{str(ROOT / 'configs/trm_ml_scenes.py')!r}]
        train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(
            dataset=dict(num_images=32)))
        val_dataloader = val_cfg = val_evaluator = None
        test_dataloader = test_cfg = test_evaluator = None
        default_hooks = dict(checkpoint=dict(save_best=None))
        train_cfg = dict(max_epochs=1)
    '''))

    def check(processes):
        outputs = [process.communicate(timeout=300)[0]
                   for process in processes]
        for process, output in zip(processes, outputs):
            assert process.returncode == 0, output[-3000:]
        saved = read_checkpoint(tmp_path / 'work/epoch_1.pth')
        assert saved['meta']['iter'] == 2  # 32 images in batches of 2 x 8
        return outputs

    return config, check


def start(command, **env):
    return subprocess.Popen(
        [*map(str, command)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
             'PORT': '', **env})


def test_two_machines_train_together(trained_on_two, tmp_path):
    """Two groups of one rank each, found by address and port."""
    config, check = trained_on_two
    port = free_port()
    check([start(['bash', 'tools/dist_train.sh', config, 1, '--work-dir',
                  tmp_path / 'work'], NNODES='2', NODE_RANK=str(node),
                 MASTER_ADDR='127.0.0.1', PORT=port) for node in range(2)])


def test_slurm_tasks_train_together(trained_on_two, tmp_path):
    """Stand-ins for srun and scontrol start two tasks with the variables that
    Slurm sets; all else is real."""
    config, check = trained_on_two
    (tmp_path / 'bin').mkdir()
    for name, text in (('scontrol', """
            [ "$*" = 'show hostname node[7-8]' ] && echo 127.0.0.1; echo node8
        """), ('srun', """
            while [ "$1" != -u ]; do
                case $1 in *python*) command=$1;; *) echo "srun $1";; esac
                shift
            done
            for rank in 0 1; do
                SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 \\
                    SLURM_NODELIST='node[7-8]' "$command" "$@" &
            done
            wait -n && wait -n
        """)):
        script = tmp_path / 'bin' / name
        script.write_text('#!/usr/bin/env bash\n' + textwrap.dedent(text))
        script.chmod(0o755)
    out, = check([start(
        ['bash', 'tools/slurm_train.sh', 'part', 'job', config,
         tmp_path / 'work'], GPUS='0', TASKS='2', MASTER_PORT=free_port(),
        PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")])
    assert 'srun --ntasks=2' in out and 'srun --gres' not in out


def test_slurm_without_slurm_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(ValueError, match='SLURM_PROCID is not set'):
        init_distributed('slurm', Config())


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setenv('LOCAL_RANK', '4')
    for start in (init_distributed, lambda launcher, _: build_runner(
            'configs/trm_ml_scenes.py', launcher=launcher)):
        with pytest.raises(ValueError, match='Rank 4 of this machine has no '
                           'GPU, because there are 4: start one rank per GPU'):
            start('pytorch', Config())


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(),
                    reason='threads are looked up in /proc')
@pytest.mark.skipif(torch.__version__.startswith('2.6.'),
                    reason='PyTorch 2.6 gives these threads no name')
def test_no_thread_of_the_group_outlives_the_run(tmp_path):
    """One that does may abort the interpreter while it ends."""
    config = tmp_path / 'test_only.py'
    config.write_text(textwrap.dedent(f'''
        _base_ = [{str(ROOT / 'configs/trm_ml_scenes.py')!r}]
        test_dataloader = dict(dataset=dict(num_images=4))
    '''))
    out = ranks('tests/ranks.py', 2, 'threads_end', config,
                tmp_path / 'work')
    assert out.count('no thread left') == 2


def test_dist_train_keeps_ranks_identical(tmp_path):
    """The real script on two CPU processes, then the real test script."""
    config = tmp_path / 'two_ranks.py'
    config.write_text(textwrap.dedent(f'''
        _base_ = [{str(ROOT / 'configs/trm_ml_scenes.py')!r}]
        custom_imports = dict(imports=['ranks'])
        custom_hooks = [
            dict(type='trm_ml_mm.PlainCheckpointHook'),
            dict(type='trm_ml_mm.EpochSeedHook'),
            dict(type='trm_ml_mm.PartialLabelHook'),
            dict(type='trm_ml_mm.RanksAgreeHook'),
            dict(type='EMAHook'),
            dict(type='trm_ml_mm.ReportHook'),
        ]
        model = dict(head=dict(prototypes=dict(warmup_images=32)))
        train_dataloader = dict(
            batch_size=8, num_workers=0,
            dataset=dict(dataset=dict(num_images=50)))
        val_dataloader = dict(num_workers=0, dataset=dict(num_images=15))
        test_dataloader = dict(
            num_workers=0, dataset=dict(split='val', num_images=15))
        train_cfg = dict(max_epochs=2)
    '''))
    work_dir = str(tmp_path / 'work')
    path = os.pathsep.join([str(ROOT / 'tests'),
                            os.environ.get('PYTHONPATH', '')])
    out = run(['bash', 'tools/dist_train.sh', str(config), '2',
               '--work-dir', work_dir, '--verbose'], PORT=free_port(),
              PYTHONPATH=path)
    assert out.count('agreed after 8 steps') == 2
    assert out.count('zero-shot CLIP, dense') == 1
    tested = run(['bash', 'tools/dist_test.sh', str(config),
                  f'{work_dir}/epoch_2.pth', '2', '--work-dir', work_dir,
                  '--verbose'],
                 PORT=free_port(), PYTHONPATH=path)
    line = [x for x in out.splitlines() if 'Epoch(val) [2]' in x][-1]
    figure = line.split('multi-label/mAP: ')[1].split()[0]
    assert f'multi-label/mAP: {figure}' in tested
