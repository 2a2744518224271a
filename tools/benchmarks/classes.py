"""Time and peak memory of a training step and of prediction with many classes,
on cached features: python tools/benchmarks/classes.py

The model is that of configs/_base_/models/trm_ml_rn101.py with made class names
and random weights; features of 14 x 14 locations and labels are made too. Each
case runs in a process of its own. Memory is the peak of what lies in RAM,
beyond what lay there before; the text is what is encoded once. The first steps,
which measure the joint space with all classes, count for the memory of a step,
not for its time."""
import argparse
import ctypes
import itertools
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from trm_ml_mm.registry import MODELS

CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/trm_ml_rn101.py'
GRID = 14, 14
KNOWN = 6  # labels of an image: as in Open Images, a third of them present
SYLLABLES = [a + b for a, b in itertools.product('bdfgklmnprstvz', 'aeiou')]
# Classes; those that a step samples; rank of the relations.
CASES = {
    '600': (600, None, None),
    '2000': (2000, None, None),
    '2000 sampled': (2000, 512, None),
    '9605 sampled': (9605, 512, 16),
    '9605 sampled more': (9605, 1024, 16),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--cases', nargs='+', choices=CASES,
                        default=list(CASES), help='default: all')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--steps', type=int, default=3,
                        help='timed ones; the fastest counts')
    parser.add_argument('--learned-prompts', action='store_true')
    parser.add_argument('--only', choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def class_names(count):
    """Pronounceable words of three syllables, all different."""
    words = itertools.product(SYLLABLES, repeat=3)
    return [''.join(word) for word in itertools.islice(words, 0, None, 31)
            ][:count]


def make_model(case, learned_prompts):
    classes, sampled, rank = CASES[case]
    model = Config.fromfile(CONFIG).model
    model.backbone.update(weights=None, classes=class_names(classes),
                          feature_grid=GRID)
    model.backbone.prompt.learnable = learned_prompts
    model.head.update(sampled_classes=sampled, relation_rank=rank)
    model.head.prototypes.warmup_images = 0
    model = MODELS.build(model)
    model.head.prototypes.prepare(1_000_000)
    return model


def make_batch(size, classes, dim, random):
    """Cached rows, and labels of classes that differ in how common they are."""
    rows = torch.from_numpy(random.standard_normal(
        (size, 1 + GRID[0] * GRID[1], dim), np.float32))
    common = 1 / (1 + np.arange(classes))**.5
    samples = []
    for _ in range(size):
        known = random.choice(classes, KNOWN, replace=False,
                              p=common / common.sum())
        labels = torch.full((classes, ), -1.)
        labels[known] = torch.arange(KNOWN).lt(KNOWN // 3).float()
        samples.append(DataSample().set_gt_score(labels))
    return rows, samples


def measured(function):
    """Seconds, and MB that it needed beyond what was in use."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free does not count as used
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # reset the peak
    before, start = status('VmRSS'), time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    return seconds, (status('VmHWM') - before) / 1e3


def status(name):
    """kB of a line of /proc/self/status."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file
                    if line.startswith(name))


def measure(args):
    """The figures of one case, in this process."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = make_model(args.only, args.learned_prompts)
    text = model.backbone.text
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    classes = len(text.class_names)

    @torch.no_grad()
    def encode():
        text.zero_shot_text(), text.text_mean(), text.eval()()

    def step():
        rows, samples = make_batch(args.batch_size, classes, text.embed_dim,
                                   random)
        model.train()
        optimizer.zero_grad()
        losses = model(rows, samples, mode='loss')
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    @torch.no_grad()
    def predict():
        model.eval()
        model(rows, samples, mode='predict')

    found = dict(text=measured(encode))
    first = []
    while model.head.alignment.is_measuring:
        first.append(measured(step))
    steps = [measured(step) for _ in range(args.steps)]
    found['step'] = (min(s for s, _ in steps),
                     max(mb for _, mb in first + steps))
    rows, samples = make_batch(args.batch_size, classes, text.embed_dim,
                               random)
    predict()  # learned prompts are encoded once
    runs = [measured(predict) for _ in range(args.steps)]
    found['prediction'] = min(s for s, _ in runs), max(mb for _, mb in runs)
    return found


def main():
    args = parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    parts = 'text', 'step', 'prediction'
    table = Table('classes', 'of them in a step', *itertools.chain(*(
        (f'{part}, s', 'peak, GB') for part in parts)))
    for case in args.cases:
        out = subprocess.run(
            [sys.executable, *sys.argv, '--only', case], check=True,
            stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(out.splitlines()[-1])
        classes, sampled, _ = CASES[case]
        table.add_row(f'{classes:,}', f'{sampled or classes:,}',
                      *itertools.chain(*(
                          (f'{found[part][0]:.2f}', f'{found[part][1]/1e3:.2f}')
                          for part in parts)))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f'batch {args.batch_size}, {GRID[0]} x {GRID[1]} locations, '
        f'{"learned" if args.learned_prompts else "fixed"} prompts; '
        f'{platform.machine()}, {torch.get_num_threads()} threads; torch '
        f'{torch.__version__}', highlight=False, soft_wrap=True)
    console.print(table)


if __name__ == '__main__':
    main()
