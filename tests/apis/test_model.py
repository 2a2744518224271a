import pytest
import torch
from mmengine.dataset import pseudo_collate
from tests_support import ROOT

from trm_ml_mm.apis import load_model
from trm_ml_mm.engine import build_dataset

CONFIG = str(ROOT / 'configs/trm_ml_scenes.py')


def test_a_loaded_model_predicts_as_the_trained_one(small_run, tmp_path):
    runner = small_run({'train_cfg.max_epochs': 1})
    runner.train()
    path = str(tmp_path / 'run/epoch_1.pth')
    model, cfg, *_ = load_model(path, CONFIG,
                                {'val_dataloader.dataset.num_images': 4})
    data = build_dataset(cfg, 'val')
    batch = pseudo_collate([data[i] for i in range(4)])
    scores = []
    for one in (model, runner.model.eval()):
        with torch.no_grad():
            out = one(**one.data_preprocessor(batch), mode='predict')
        scores.append(torch.stack([s.pred_logit for s in out]))
    assert torch.equal(*scores)
    assert not model.training


def test_what_does_not_fit_is_refused(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1}).train()
    path = str(tmp_path / 'run/epoch_1.pth')
    with pytest.raises(ValueError, match='other class names'):
        load_model(path, CONFIG, {'scene_set': 1})
    with pytest.raises(ValueError, match='has the unknown entry'):
        load_model(path, CONFIG, {'model.head.relations': 0})
    with pytest.raises(FileNotFoundError, match='Checkpoint none.pth'):
        load_model('none.pth', CONFIG)
    (tmp_path / 'text.pth').write_text('hello')
    with pytest.raises(ValueError, match='cannot|not a checkpoint'):
        load_model(str(tmp_path / 'text.pth'), CONFIG)
    torch.save(dict(a=1), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='has no "state_dict"'):
        load_model(str(tmp_path / 'other.pth'), CONFIG)


def test_a_checkpoint_of_an_earlier_layout_is_refused(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1}).train()
    saved = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=True)
    saved['state_dict']['head.prototypes.seen'] = torch.zeros(2, 30)
    torch.save(saved, tmp_path / 'old.pth')
    with pytest.raises(ValueError, match='version 0.1.0 or earlier'):
        load_model(str(tmp_path / 'old.pth'), CONFIG)
