"""Look at what a config trains on: python tools/inspect_data.py CONFIG"""
import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trm_ml_mm.cli.arguments import add_config, parse


def parse_args():
    parser = argparse.ArgumentParser(
        description='Count images and labels, find unreadable files, and '
        'save a picture of samples with their known labels')
    add_config(parser)
    parser.add_argument(
        '--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--out', help='folder of the picture (default: the '
                        'work dir of the config)')
    parser.add_argument(
        '--samples', type=int, default=12, help='images in the picture')
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the samples')
    parser.add_argument(
        '--no-decode', action='store_true',
        help='do not decode every image to find unreadable ones')
    return parse(parser)


def main():
    args = parse_args()
    from trm_ml_mm.datasets import known_labels_of, label_matrix
    from trm_ml_mm.datasets.inspection import (
        find_unreadable,
        image_paths,
        image_problem,
    )
    from trm_ml_mm.engine import build_dataset, load_config, work_dir_of
    from trm_ml_mm.labels import summarize_labels
    from trm_ml_mm.visualization import draw_samples
    cfg = load_config(args.config, args.cfg_options)
    dataset = build_dataset(cfg, args.split)
    labels = label_matrix(dataset)
    counts = summarize_labels(labels)
    classes = dataset.metainfo['classes']
    console = Console()

    table = Table('class', *(c for c in ('known', 'positive', 'negative',
                                         'unknown')))
    for c, name in enumerate(classes):
        p, n, u = (int(kind[c]) for kind in counts[:3])
        table.add_row(escape(name), *map(str, (p + n, p, n, u)))
    console.print(table)
    p, n, u = (int(kind.sum()) for kind in counts[:3])
    facts = Table(show_header=False)
    for name, value in [
        ('images', len(labels)),
        ('classes', len(classes)),
        ('known labels', f'{p + n} ({100 * (p + n) / labels.size:.2f}%)'),
        ('positive', p),
        ('negative', n),
        ('unknown', u),
        ('images without a known label', counts.images_without),
        ('classes without a known positive', int((counts.positive == 0).sum())),
    ]:
        facts.add_row(name, str(value))
    known = known_labels_of(dataset)
    if known:
        facts.add_row('mask', f'known={known["known"]} seed={known["seed"]} '
                      f'hash={known["hash"]}')

    broken = {}
    paths = image_paths(dataset)
    if paths and not args.no_decode:
        broken = find_unreadable(paths)
        facts.add_row('unreadable files', str(len(broken)))
    console.print(facts)
    for path, why in broken.items():
        console.print(f'{path}: {why}', soft_wrap=True, markup=False)

    chosen = []
    for i in np.random.RandomState(args.seed).permutation(len(labels)):
        if len(chosen) < args.samples and not (
                paths and image_problem(paths[i])):
            chosen.append(i)
    if chosen:
        out = Path(args.out or work_dir_of(cfg))
        out.mkdir(parents=True, exist_ok=True)
        picture = out / f'samples_{args.split}.png'
        draw_samples(dataset, str(picture), sorted(chosen))
        console.print(f'Picture: {picture}', soft_wrap=True)
    sys.exit(1 if broken else 0)


if __name__ == '__main__':
    main()
