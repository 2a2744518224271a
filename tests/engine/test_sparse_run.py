"""Runs on labels in sparse rows: train, save, resume, evaluate, refuse."""
import numpy as np
import pytest
import torch
import trees
from tests_support import ROOT

from trm_ml_mm.engine import build_runner
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.labels import SparseLabels, load_mask

TRAIN = 'oidv6-train-annotations-human-imagelabels.csv'


@pytest.fixture
def run(tmp_path, tiny_clip):
    trees.open_images(tmp_path)

    def build(epochs=2, **options):
        return build_runner(
            str(ROOT / 'configs/trm_ml_openimages.py'),
            str(tmp_path / 'work'), {
                'data_root': f'{tmp_path}/', 'arch': tiny_clip,
                'image_size': 64, 'model.backbone.weights': None,
                'epochs': epochs, 'workers': 0, 'experiment_name': str(
                    len(list(tmp_path.glob('work/*')))),
                'train_dataloader.batch_size': 2, **options.pop('cfg', {})},
            **options)
    return build


def test_a_training_and_its_resume(run, tmp_path):
    runner = run()
    runner.train()
    labels = runner.train_dataloader.dataset.matrix
    assert isinstance(labels, SparseLabels)
    counts = runner.model.head.label_statistics
    assert counts.positives.tolist() == labels.summary().positive.tolist()
    assert counts.negatives.tolist() == labels.summary().negative.tolist()
    record = read_record(tmp_path / 'work')
    assert record.training_labels == dict(present=3, absent=2, unknown=7)
    assert 'mAP' in record.row('last').metrics
    saved, = (tmp_path / 'work').glob('known_labels_*.npz')
    assert load_mask(saved).mask.tolist() == [True] * 5
    whole = torch.load(tmp_path / 'work/epoch_2.pth', weights_only=True)
    assert whole['meta']['known_labels']['labels'] == labels.digest
    # The same two epochs, with a stop between them.
    (tmp_path / 'work').rename(tmp_path / 'whole')
    first = run(cfg={'train_cfg.max_epochs': 1})
    first.train()
    run(resume='auto').train()
    again = torch.load(tmp_path / 'work/epoch_2.pth', weights_only=True)
    for name, value in whole['state_dict'].items():
        np.testing.assert_array_equal(value, again['state_dict'][name], name)


def test_a_run_does_not_resume_on_other_labels(run, tmp_path):
    run(cfg={'train_cfg.max_epochs': 1}).train()
    path = tmp_path / TRAIN
    path.write_text(path.read_text().replace('/m/04,1', '/m/04,0'))
    with pytest.raises(ValueError, match='was trained on other labels'):
        run(resume='auto').train()


def test_fewer_labels_on_purpose(run):
    """A mask over labels that are missing anyway."""
    runner = run(cfg={'train_dataloader.dataset.known': .5})
    dataset = runner.build_dataloader(
        runner.cfg.train_dataloader, seed=0).dataset
    whole = dataset.dataset.matrix.dense()
    hidden = dataset.hidden_labels() != -1
    assert 0 < hidden.sum() < (whole != -1).sum()
    assert (np.where(hidden, -1, whole) == dataset.labels).all()
