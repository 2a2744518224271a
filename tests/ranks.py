"""Run by test_distributed.py on every rank."""
import os
import sys
import time
from glob import glob
from pathlib import Path

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from trm_ml_mm.engine import close
from trm_ml_mm.registry import HOOKS, MODELS


@HOOKS.register_module()
class RanksAgreeHook(Hook):
    """After every step: the same learned weights and memory on all ranks."""

    steps = 0

    def after_train_iter(self, runner, *args, **kwargs):
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        for name, value in model.state_dict().items():
            for other in all_gather(value.contiguous()):
                same = torch.equal(value, other) or torch.equal(
                    value.nan_to_num(), other.nan_to_num())
                assert same, f'{name} differs between ranks'
        assert get_world_size() == 2
        RanksAgreeHook.steps += 1

    def after_train(self, runner):
        print(f'rank {get_rank()}: agreed after {self.steps} steps')


def make_head(num_classes=6, **options):
    torch.manual_seed(0)
    head = MODELS.build(dict(
        type='trm_ml_mm.TextRegionMatchingHead',
        num_classes=num_classes,
        dim=16,
        loss=dict(type='trm_ml_mm.PartialAsymmetricLoss'),
        distillation=dict(type='trm_ml_mm.RegionDistillationLoss'),
        contrast=dict(type='trm_ml_mm.MultimodalContrastiveLoss'),
        prototypes=dict(type='trm_ml_mm.MultimodalPrototypes',
                        warmup_images=0),
        pseudo_weight=.5, assume_negative=.1, relations=10., **options))
    for value in head.parameters():
        value.data.add_(.05 * torch.randn_like(value))
    return head


class Step(torch.nn.Module):
    """Head and text, as a model whose forward gives the loss."""

    def __init__(self, align):
        super().__init__()
        self.align = align
        self.head = make_head()
        self.text = torch.nn.Parameter(torch.randn(1, 6, 16))

    def forward(self, dense, targets):
        from trm_ml_mm.models import CLIPFeatures
        text = torch.nn.functional.normalize(self.text, dim=-1)
        mean = text.new_zeros(16) if self.align else None
        feats = CLIPFeatures((dense, ), text, text[0].detach(), mean)
        self.head.calibrate(feats)
        losses = self.head.losses(self.head.match(feats), targets)
        return sum(v for k, v in losses.items() if 'loss' in k)


def steps(model, dense, targets, lr, count=3):
    """Gradients of the last of a few SGD steps, and the memory."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(count):
        optimizer.zero_grad()
        model(dense, targets).backward()
        optimizer.step()
    module = getattr(model, 'module', model)
    out = {f'grad {k}': v.grad for k, v in module.named_parameters()}
    out.update({f'value {k}': v for k, v in module.state_dict().items()})
    return out


def one_step_equals_joined_batch():
    torch.manual_seed(1)
    dense = torch.randn(16, 16, 3, 3)
    targets = torch.randint(-1, 2, (16, 6)).float()
    targets[::2, :4] = -1  # rank 0 knows few labels, rank 1 many
    targets[:, 5][targets[:, 5] == 0] = -1  # no negative of it is known
    # Aligned attention is sharp: at a large rate, rounding would grow.
    settings = dict(plain=(False, .1), aligned=(True, .001))
    alone = {name: steps(Step(align), dense, targets, lr)
             for name, (align, lr) in settings.items()}  # there is no group yet
    torch.distributed.init_process_group('gloo')
    mine = slice(get_rank(), None, 2)  # as samplers deal images out
    for setting, (align, lr) in settings.items():
        model = torch.nn.parallel.DistributedDataParallel(
            Step(align), broadcast_buffers=False, find_unused_parameters=True)
        together = steps(model, dense[mine], targets[mine], lr)
        for name, value in alone[setting].items():
            if value.dtype.is_floating_point:
                a, b = value.nan_to_num(), together[name].nan_to_num()
                gap = (a - b).abs().max().item()
                assert gap < 1e-5, f'{setting}, {name}: {gap}'
        print(f'rank {get_rank()}, {setting}: values agree')


def selective_loss_equals_joined_batch():
    """Gradients of each mode; the ranks know very different numbers."""
    from trm_ml_mm.models import SelectiveLoss
    from trm_ml_mm.models.losses.selective import MODES
    torch.manual_seed(1)
    inputs, targets = torch.randn(16, 8), torch.randint(-1, 2, (16, 6)).float()
    targets[::2, :5] = -1
    layer = torch.nn.Linear(8, 6)

    def gradient(loss, model, rows):
        model.zero_grad()
        loss(model(inputs[rows]), targets[rows]).backward()
        return layer.weight.grad.clone()

    losses = [SelectiveLoss(mode, top=2) for mode in MODES]
    alone = [gradient(loss, layer, slice(None)) for loss in losses]
    torch.distributed.init_process_group('gloo')
    model = torch.nn.parallel.DistributedDataParallel(layer)
    for loss, expected in zip(losses, alone):
        got = gradient(loss, model, slice(get_rank(), None, 2))
        assert (got - expected).abs().max() < 1e-6, loss.mode
        print(f'rank {get_rank()}, {loss.mode}: the loss agrees')


def sampled_steps_agree():
    """8 of 20 classes in each step: those that any rank has a label of."""
    from mmpretrain.structures import DataSample

    from trm_ml_mm.models import CLIPFeatures
    torch.manual_seed(1)
    dense = torch.randn(3, 12, 16, 3, 3)
    text = torch.nn.functional.normalize(torch.randn(1, 20, 16), dim=-1)
    targets = torch.full((3, 12, 20), -1.)
    for i in range(12):  # every image has a known label of its own class
        targets[:, i, i % 5] = torch.tensor([1., 0., 1.])

    def run(rows):
        head, chosen = make_head(20, sampled_classes=8), []
        match = head.match
        head.match = lambda feats, classes: (
            chosen.append(classes.tolist()) or match(feats, classes))
        for images, known in zip(dense, targets):
            head.zero_grad()
            losses = head.loss(
                CLIPFeatures((images[rows], ), text, text[0]),
                [DataSample().set_gt_score(row) for row in known[rows]])
            sum(v for k, v in losses.items() if 'loss' in k).backward()
        grads = {f'grad {k}': p.grad for k, p in head.named_parameters()
                 if p.grad is not None}
        return chosen, head, grads

    chosen, alone, grads = run(slice(12))
    assert all(len(c) == 8 and set(range(5)) <= set(c) for c in chosen)
    assert len(set(map(str, chosen))) == 3
    rank = int(os.environ['RANK'])
    for world in (2, 3):
        if rank >= world:
            continue
        torch.distributed.init_process_group(
            'gloo', f'file://{sys.argv[2]}/{world}', rank=rank,
            world_size=world)
        again, head, own = run(slice(rank, None, world))
        assert again == chosen
        for grad in own.values():
            torch.distributed.all_reduce(grad)
            grad /= world
        for name, value in {**alone.state_dict(), **grads}.items():
            other = {**head.state_dict(), **own}[name]
            gap = value.nan_to_num().double() - other.nan_to_num().double()
            assert gap.abs().max() < 1e-5, name
        torch.distributed.destroy_process_group()
        print(f'rank {rank} of {world}: agrees')


def uneven_ranks_start_alike():
    """5 and 11 images: the start of one rank with all 16."""
    from trm_ml_mm.models import CLIPFeatures
    torch.manual_seed(1)
    dense = torch.randn(16, 16, 3, 3)
    text = torch.nn.functional.normalize(torch.randn(1, 6, 16), dim=-1)

    def start(rows):
        head = make_head()
        for _ in range(2):  # the second batch moves the running means
            head.calibrate(CLIPFeatures((dense[rows], ), text, text[0],
                                        .1 * text[0, 0]))
        return dict(head.alignment.state_dict(), bias=head.common_bias)

    alone = start(slice(16))
    torch.distributed.init_process_group('gloo')
    together = start(slice(5) if get_rank() == 0 else slice(5, 16))
    for name, value in alone.items():
        gap = (value - together[name]).abs().max().item()
        assert gap < 1e-5, f'{name}: {gap}'
    assert alone['seen'] == 32 and alone['bias'] != 0
    print(f'rank {get_rank()}: the start agrees')


def metrics_agree():
    from trm_ml_mm.evaluation import (
        AttributeMetrics,
        MultiLabelAP,
        MultiLabelAUROC,
        MultiLabelF1,
        entries,
    )
    entries.PIECE, entries.BLOCK = 8, 40  # several pieces and blocks
    torch.manual_seed(2)
    logits = torch.randn(31, 5)
    targets = torch.randint(-1, 2, (31, 5)).float()

    def run(rows):
        before = set(os.listdir())
        values = {}
        for metric in (MultiLabelAP(), MultiLabelF1(),
                       MultiLabelAP(prefix='disk', max_memory=0),
                       AttributeMetrics(topk=2), MultiLabelAUROC()):
            for start in range(0, len(rows), 4):
                metric.process(None, [
                    dict(pred_score=logits[i].sigmoid(), pred_logit=logits[i],
                         gt_score=targets[i]) for i in rows[start:start + 4]])
            values.update(metric.evaluate(31))
        assert set(os.listdir()) == before  # nothing beside the work dir
        return values

    alone = run(range(31))
    torch.distributed.init_process_group('gloo')
    world = get_world_size()
    # As DefaultSampler: strided, padded by repeating from the start.
    padded = [i % 31 for i in range(-(-31 // world) * world)]
    together = run(padded[get_rank()::world])
    assert alone == together, (alone, together)
    print(f'rank {get_rank()}: {len(alone)} metrics agree')


def train():
    """20 steps of the real run, for each config; the last checkpoints stay."""
    from trm_ml_mm.engine import build_runner
    work_dir, *configs = sys.argv[2:]
    for config in map(Path, configs):
        runner = build_runner(str(config), work_dir=f'{work_dir}/{config.stem}',
                              launcher='pytorch', options={
                                  'train_dataloader.batch_size':
                                  16 // int(os.environ['WORLD_SIZE'])})
        runner.train()
        assert runner.iter == 20


def a_frozen_rank_is_not_waited_for():
    """Rank 1 does nothing; the timeout of the config ends rank 0's wait."""
    from mmengine.config import Config

    from trm_ml_mm.engine import init_distributed
    start = time.monotonic()
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(timeout=3))))
    if init_distributed('pytorch', cfg):
        time.sleep(12)
        return
    try:
        torch.distributed.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        waited = time.monotonic() - start
        print(f'gave up: {"imed out" in str(error)}, early: {waited < 11}')


def threads_end():
    """What tools/test.py does, then a look at the threads that are left."""
    from trm_ml_mm.engine import build_runner
    config, work_dir = sys.argv[2:]
    build_runner(config, work_dir=work_dir, launcher='pytorch').test()
    assert any('gloo' in name for name in thread_names())
    close()
    left = [name for name in thread_names() if 'gloo' in name]
    assert not left, left
    print(f'rank {os.environ["RANK"]}: no thread left')


def thread_names():
    return [Path(path).read_text() for path in glob('/proc/self/task/*/comm')]


if __name__ == '__main__':
    globals()[sys.argv[1]]()
    close()
