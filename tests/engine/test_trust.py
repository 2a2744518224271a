"""Files from strangers never run code, and nothing outside the work dir is
written or removed."""
import logging
import pickle
import shutil

import pytest
import torch
from malicious import Evil
from tests_support import build_small

from trm_ml_mm.apis.model import load_model
from trm_ml_mm.engine import AtomicLocalBackend, read_checkpoint


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    """A work dir after one epoch of two."""
    folder = tmp_path_factory.mktemp('original')
    runner = build_small(folder, {'train_cfg.max_epochs': 1})
    runner.train()
    return folder / 'run'


@pytest.fixture
def trained(original, tmp_path):
    """A function that changes the checkpoint of a copy of that work dir."""
    shutil.copytree(original, tmp_path / 'first')
    path = tmp_path / 'first' / 'epoch_1.pth'

    def change(edit):
        checkpoint = torch.load(path, weights_only=True)
        edit(checkpoint)
        torch.save(checkpoint, path)
        return path

    return change


def test_config_text_of_a_checkpoint_is_never_executed(small_run, trained,
                                                       tmp_path):
    marker = tmp_path / 'ran'
    path = trained(lambda c: c['meta'].update(
        config=f'open({str(marker)!r}, "w")'))
    small_run(work_dir='b', resume=str(path)).train()
    small_run(work_dir='c', checkpoint=str(path)).test()
    assert not marker.exists()


@pytest.mark.parametrize('kind', ['file', 'folder', 'other run'])
def test_a_checkpoint_removes_nothing_outside_the_work_dir(
        small_run, trained, tmp_path, kind):
    victim = tmp_path / 'other' / 'epoch_1.pth'
    victim.parent.mkdir()
    victim.write_text('mine')
    named = victim.parent if kind == 'folder' else victim

    def edit(checkpoint):
        info = checkpoint['message_hub']['runtime_info']
        info.update(best_ckpt=str(named), best_score=-1., last_ckpt=str(named),
                    keep_ckpt_ids=['../other/epoch_1', 1, 1, 1, 1])

    path = trained(edit)
    runner = small_run({'default_hooks.checkpoint.max_keep_ckpts': 1},
                       'b' if kind == 'other run' else 'first',
                       resume=str(path))
    runner.train()
    AtomicLocalBackend.clear()
    assert victim.read_text() == 'mine'
    if kind == 'other run':
        assert path.is_file()
    assert 'b' if kind == 'other run' else 'first' in (
        runner.message_hub.get_info('best_ckpt'))


def test_the_backend_removes_only_where_it_writes(tmp_path):
    backend = AtomicLocalBackend()
    (tmp_path / 'other').mkdir()
    victim = tmp_path / 'other' / 'x.pth'
    victim.write_text('mine')
    backend.remove(str(victim))
    backend.rmtree(str(victim.parent))
    for number in range(3):
        backend.put(b'', str(tmp_path / 'own' / f'{number}.pth'))
    AtomicLocalBackend.clear()
    assert victim.read_text() == 'mine'


def test_an_address_is_no_checkpoint(small_run, trained, tmp_path):
    path = trained(lambda c: None)
    path.with_name('last_checkpoint').write_text('http://127.0.0.1:9/a.pth')
    runner = small_run(work_dir='first', resume='auto')
    runner.train()
    assert runner.epoch == 2
    runner = small_run({'load_from': 'http://127.0.0.1:9/a.pth'}, 'new')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        runner.train()


@pytest.mark.parametrize('how', ['resume', 'test', 'load_from', 'read',
                                 'load_model', 'latest', 'weights'])
@pytest.mark.parametrize('kind', ['pickle', 'torch'])
def test_pickles_run_nowhere(small_run, trained, tmp_path, how, kind):
    marker = tmp_path / 'ran'
    path = trained(lambda c: None)
    path.unlink()
    content = dict(state_dict={'a': torch.zeros(1)}, meta=Evil(marker))
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=str(path)) as caught:
        if how == 'resume':
            small_run(work_dir='b', resume=str(path)).train()
        elif how == 'latest':
            small_run(work_dir='first', resume='auto').train()
        elif how == 'load_from':
            small_run({'load_from': str(path)}, 'b').train()
        elif how == 'test':
            small_run(work_dir='b', checkpoint=str(path)).test()
        elif how == 'weights':
            small_run({'model.backbone.weights': str(path)}, 'b')
        elif how == 'load_model':
            load_model(str(path), 'configs/trm_ml_scenes.py')
        else:
            read_checkpoint(path)
    assert not marker.exists()
    assert 'safely' in str(caught.value)


@pytest.mark.parametrize('edit', [
    lambda c: c.pop('message_hub'),
    lambda c: c.update(meta=[]),
    lambda c: c.update(message_hub=3),
    lambda c: c['message_hub'].update(log_scalars=[1]),
    lambda c: c['meta'].pop('epoch'),
    lambda c: c['meta'].update(epoch='many'),
    lambda c: c.update(optimizer=7),
    lambda c: c.update(param_schedulers=[{}]),
    lambda c: c['state_dict'].popitem(),
    lambda c: c['state_dict'].update({'head.bias': 'text'}),
    lambda c: c['state_dict'].update({'head.class_bias': torch.zeros(7)}),
])
def test_a_strange_checkpoint_is_refused_in_one_sentence(small_run, trained,
                                                         edit):
    path = trained(edit)
    with pytest.raises(ValueError, match=str(path)):
        small_run(work_dir='b', resume=str(path)).train()


def test_a_test_needs_every_learned_weight(small_run, trained):
    path = trained(lambda c: c['state_dict'].pop('head.region.query_offset'))
    with pytest.raises(ValueError, match='lacks head.region.query_offset'):
        small_run(work_dir='b', checkpoint=str(path)).test()


def test_fine_tuning_says_what_it_does_not_load(small_run, trained, caplog):
    path = trained(lambda c: c['state_dict'].pop('head.region.query_offset'))
    with caplog.at_level(logging.WARNING):
        runner = small_run({'load_from': str(path)}, 'b')
        runner.train()
    assert runner.epoch == 2
