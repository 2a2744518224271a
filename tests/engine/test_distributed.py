import os
import textwrap
from pathlib import Path

import pytest
from tests_support import ROOT, free_port, ranks, run

from trm_ml_mm.engine import read_checkpoint


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


@pytest.mark.parametrize('known, images', [(.3, 64), (.02, 64), (.3, 50)])
def test_a_training_does_not_depend_on_the_number_of_ranks(tmp_path, known,
                                                           images):
    """Weights, prototypes, history and EMA after 20 steps. With 2% known, some
    ranks see batches without any known label. 50 images are padded, so two and
    four ranks see some twice: then nothing hangs and all is finite."""
    config = tmp_path / 'ranks.py'
    config.write_text(textwrap.dedent(f'''
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
                dict(type='trm_ml_mm.RenderScene'), dict(type='PackInputs')])))
        val_dataloader = val_cfg = val_evaluator = None
        test_dataloader = test_cfg = test_evaluator = None
        default_hooks = dict(checkpoint=dict(save_best=None))
        train_cfg = dict(max_epochs=5)
    '''))
    found = {}
    for count in (1, 2, 4):
        folder = tmp_path / f'{count}'
        ranks('tests/ranks.py', count, 'train', config, folder)
        saved = read_checkpoint(folder / 'epoch_5.pth')
        assert 'head.prototypes.visual' in saved['state_dict']
        found[count] = {
            f'{part} {name}': value.nan_to_num().double()
            for part in ('state_dict', 'ema_state_dict')
            for name, value in saved[part].items()}
    for count in (2, 4):
        for name, value in found[1].items():
            other = found[count][name]
            assert other.isfinite().all(), name
            # Scores in the history are logits: ten times as large.
            bound = 1e-3 if name.endswith('history') else 1e-5
            gap = (value - other).abs().max()
            assert images % 16 or gap < bound, f'{count} ranks, {name}: {gap}'


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(),
                    reason='threads are looked up in /proc')
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
               '--work-dir', work_dir], PORT=free_port(), PYTHONPATH=path)
    assert out.count('agreed after 8 steps') == 2
    assert out.count('zero-shot CLIP, dense') == 1
    tested = run(['bash', 'tools/dist_test.sh', str(config),
                  f'{work_dir}/epoch_2.pth', '2', '--work-dir', work_dir],
                 PORT=free_port(), PYTHONPATH=path)
    line = [x for x in out.splitlines() if 'Epoch(val) [2]' in x][-1]
    figure = line.split('multi-label/mAP: ')[1].split()[0]
    assert f'multi-label/mAP: {figure}' in tested
