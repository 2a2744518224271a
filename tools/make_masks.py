"""Draw, save, verify and print masks of known labels:
python tools/make_masks.py CONFIG --known 0.1 0.5 single_positive --out DIR

With --proposer, a weak model proposes the labels that are known, so that they
are not missing at random."""
import argparse
import sys
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from trm_ml_mm.cli.arguments import add_cfg_options, command, parse, setting
from trm_ml_mm.labels import PRESENT, UNKNOWN
from trm_ml_mm.utils.screen import track

PROPOSED = 'proposed '  # starts the rule of a mask of proposals


def parse_args():
    parser = argparse.ArgumentParser(
        description='Draw, save, verify and print masks of known labels')
    parser.add_argument(
        'source', help='a config (its training set is used), or a matrix of '
        'labels (.npy; .npz with "labels", or "packed" and "num_classes")')
    parser.add_argument(
        '--known', nargs='+', default=['0.1', '0.3', '0.5', '0.7', '0.9',
                                       'single_positive'],
        help="proportions, 'single_positive', 'all', or files")
    parser.add_argument(
        '--seed', type=int, help="of the masks; default: the protocol's own")
    parser.add_argument(
        '--proposer', metavar='CONFIG|FILE', help='a weak model proposes '
        'labels, and these become known: a config of zero-shot CLIP, whose '
        'training set is scored, or a matrix of scores (.npy); --known takes '
        'proportions only')
    parser.add_argument(
        '--random', type=float, default=.1, help='ratio of the proposals '
        'that are drawn at random instead (default: 0.1)')
    parser.add_argument('--out', help='save every mask in this folder')
    parser.add_argument(
        '--verify', nargs='+', default=[],
        help='mask files to draw again and compare, instead of --known')
    parser.add_argument(
        '--per-class', action='store_true', help='print every class too')
    parser.add_argument(
        '--difficult', choices=['negative', 'unknown', 'positive'],
        help="the matrix is in PASCAL VOC's coding (1 present, 0 difficult, "
        '-1 absent): how to count difficult objects')
    add_cfg_options(parser)
    return parse(parser)


def read_source(args):
    """Labels (N, C), image paths, class names."""
    from trm_ml_mm.datasets import label_matrix, scores_from_pascal
    from trm_ml_mm.labels import load_labels
    if not args.source.endswith('.py'):
        labels = load_labels(args.source)
        if args.difficult:
            labels = scores_from_pascal(labels, args.difficult)
        return labels, [], [str(c) for c in range(labels.shape[1])]
    from trm_ml_mm.engine import build_dataset, load_config
    dataset = build_dataset(load_config(args.source, args.cfg_options))
    while hasattr(dataset, 'mask'):  # the labels under it
        dataset = dataset.dataset
    dataset.full_init()
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    return label_matrix(dataset), paths, list(dataset.metainfo['classes'])


def drawing_rule(args, labels, images, classes):
    """The function that draws the mask of a setting and a seed."""
    from trm_ml_mm.labels import draw_mask, proposed_mask
    if args.proposer is None:
        return lambda known, seed: draw_mask(labels, known, seed, images,
                                             classes)
    scores = read_scores(args)
    if scores.shape != labels.shape:
        sys.exit(f'{args.proposer} scores {scores.shape[0]} images and '
                 f'{scores.shape[1]} classes, and the labels are of '
                 f'{labels.shape[0]} and {labels.shape[1]}: take scores of the '
                 'same training set.')
    return lambda known, seed: proposed_mask(scores, known, args.random,
                                             seed or 0)


def read_scores(args):
    """Scores (N, C) of the weak model."""
    from trm_ml_mm.apis import zero_shot_training_scores
    from trm_ml_mm.labels import load_scores
    if args.proposer.endswith('.npy'):
        return load_scores(args.proposer)
    return zero_shot_training_scores(args.proposer, args.cfg_options)


def saved_setting(saved, args):
    """The setting that a saved mask was drawn with."""
    if saved.known.startswith(PROPOSED) != (args.proposer is not None):
        sys.exit(f'The mask {saved.hash} was drawn with known={saved.known}: '
                 'give --proposer (and --random) as then, and only for masks '
                 'of proposals.')
    return setting(saved.known.removeprefix(PROPOSED))


@command
def main():
    args = parse_args()
    from trm_ml_mm.labels import (
        load_mask,
        mask_hash,
        save_mask,
        summarize_labels,
    )
    labels, images, classes = read_source(args)
    draw = drawing_rule(args, labels, images, classes)
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(
        f'{len(labels)} images, {len(classes)} classes, '
        f'{int((labels == PRESENT).sum())} positive labels', highlight=False)
    jobs = [(setting(known), args.seed) for known in args.known]
    saved = [load_mask(path) for path in args.verify]
    if saved:
        jobs = [(saved_setting(s, args), None if s.seed == 'None'
                 else int(s.seed)) for s in saved]
    table = Table(
        *(Column(name, no_wrap=True) for name in
          ('known', 'seed', 'labels', 'positive', 'no label', 'hash')),
        *(['file'] if saved else []),
        box=box.SIMPLE)
    per_class, wrong = {}, 0
    for i, (known, seed) in enumerate(track(
            jobs, 'Drawing masks')):
        mask = draw(known, seed)
        counts = summarize_labels(np.where(mask, labels, UNKNOWN))
        per_class[str(known)] = counts
        row = [str(known), str(seed), str(counts.known.sum()),
               str(counts.positive.sum()), str(counts.images_without),
               mask_hash(mask)]
        if saved:
            same = saved[i].hash == mask_hash(mask)
            wrong += not same
            row.append('as drawn' if same else f'DIFFERS: {saved[i].hash}')
        table.add_row(*row)
        if args.out and not saved:
            out = Path(args.out)
            out.mkdir(parents=True, exist_ok=True)
            name = Path(known).stem if isinstance(known, str) else known
            if args.proposer:
                name, known = f'proposed_{name}', f'{PROPOSED}{known}'
            path = out / f'{name}_{mask_hash(mask)}.npz'
            save_mask(path, mask, known, seed)
            console.print(f'Saved {path}', soft_wrap=True, highlight=False)
    console.print(table)
    if args.per_class:
        table = Table('class', *(f'{k}: {what}' for k in per_class
                                 for what in ('known', 'positive')))
        for c, name in enumerate(classes):
            table.add_row(escape(name), *(
                str(kind[c]) for counts in per_class.values()
                for kind in (counts.known, counts.positive)))
        console.print(table)
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main()
