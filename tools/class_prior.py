"""Estimate how common each class is, from a model's mean prediction:
python tools/class_prior.py CONFIG CHECKPOINT --out prior.npy"""
import argparse
from pathlib import Path

import numpy as np

from trm_ml_mm.cli.arguments import add_config, command, parse


def parse_args():
    parser = argparse.ArgumentParser(
        description='Estimate the ratio of images that have each class: the '
        'mean prediction of a model on the training set of a config, for '
        'model.head.loss.prior of SelectiveLoss')
    add_config(parser)
    parser.add_argument('checkpoint', help='of a model that was trained with '
                        'known labels only')
    parser.add_argument('--out', required=True, metavar='FILE.npy')
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.apis import label_prior
    from trm_ml_mm.utils.io import atomic_write
    prior = label_prior(args.checkpoint, args.config, args.cfg_options)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.out) as fresh, open(fresh, 'wb') as file:
        np.save(file, prior)
    print(f'{len(prior)} classes, of which an image has {prior.sum():.2f} on '
          f'average; the most common one is in {100 * prior.max():.1f}% of the '
          f'images. Saved {args.out}')


if __name__ == '__main__':
    main()
