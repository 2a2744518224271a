"""Training and evaluation never synchronise the device once per image: the
number of synchronisations does not depend on the batch size."""
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import MODELS
from tests_support import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.evaluation import MultiLabelAP, MultiLabelF1

WAITS = {'_local_scalar_dense', 'nonzero', 'equal', 'is_nonzero'}


class CountWaits(TorchDispatchMode):
    """Counts what would wait for a GPU: values read, copies to the CPU."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ('cpu', 'numpy', 'tolist'):
            monkeypatch.setattr(torch.Tensor, name, self.counted(
                getattr(torch.Tensor, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.count += 1
            return function(*args, **kwargs)
        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope='module')
def setting():
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'), {
        'train_dataloader.dataset.dataset.num_images': 32,
        'val_dataloader.dataset.num_images': 32})
    model = MODELS.build(cfg.model)
    model.head.prototypes.warmup_images = 0
    sets = {split: build_dataset(cfg, split) for split in ('train', 'val')}
    return model, {split: [data[i] for i in range(32)]
                   for split, data in sets.items()}


def waits(monkeypatch, run):
    with monkeypatch.context() as patch, CountWaits(patch) as counter:
        run()
    return counter.count


@pytest.mark.parametrize('split', ['train', 'val'])
def test_waits_do_not_grow_with_the_batch(monkeypatch, setting, split):
    model, samples = setting
    metrics = [MultiLabelAP(), MultiLabelF1()]

    def step(count):
        data = model.data_preprocessor(pseudo_collate(samples[split][:count]))
        if split == 'train':
            model.train()
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            loss.backward()
        else:
            model.eval()
            with torch.no_grad():
                out = model(**data, mode='predict')
            for metric in metrics:
                metric.process(None, [s.to_dict() for s in out])

    for _ in range(2):  # what is computed once; metrics take a batch one later
        step(4)
    counts = [waits(monkeypatch, lambda n=n: step(n)) for n in (4, 8, 32)]
    assert len(set(counts)) == 1, counts


def test_sampling_classes_waits_once(monkeypatch, setting):
    model, samples = setting
    model.train()
    data = model.data_preprocessor(pseudo_collate(samples['train'][:8]))
    counts = []
    for sampled in (None, 30, 29):
        monkeypatch.setattr(model.head, 'sampled_classes', sampled)
        counts.append(waits(monkeypatch, lambda: model(**data, mode='loss')))
    assert counts[0] == counts[1] == counts[2] - 1


def test_the_counter_counts(monkeypatch):
    scores = torch.rand(5, 3)
    assert waits(monkeypatch, lambda: [s.max().item() for s in scores]) == 5
    assert waits(monkeypatch, lambda: [s.cpu() for s in scores]) == 5
    assert waits(monkeypatch, lambda: [torch.where(s > .5) for s in scores]
                 ) == 5
    assert waits(monkeypatch, lambda: np.sum(scores.sum(1).numpy())) == 1
