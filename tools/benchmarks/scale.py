"""Print the arithmetic of large data sets: labels, images, features, what is
learned, and what the ranks send: python tools/benchmarks/scale.py

Nothing is measured: sizes follow from the number of images, classes and labels
(or are those of the model that a config builds). A set is
name:images:classes:labels of an image:KB of an image."""
import argparse

import torch

from trm_ml_mm.engine import load_config
from trm_ml_mm.models.towers import joint_width, row_shape
from trm_ml_mm.registry import MODELS

SETS = ('COCO 2014:82783:80:80:160', 'LVIS:100170:1203:24:160',
        'Open Images:9011219:9605:6.38:310',
        'a billion:1000000000:9605:6.38:310')
GRID = 14, 14  # of RN101 at 448 px


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--sets', nargs='+', default=SETS)
    parser.add_argument('--config', default='configs/trm_ml_openimages.py')
    parser.add_argument('--shard-mb', type=float, default=1000)
    parser.add_argument('--batch-size', type=int, default=32,
                        help='of a rank')
    parser.add_argument('--speed', type=float, default=1000,
                        help='images a GPU takes in a second')
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 8, 64])
    return parser.parse_args()


def size(count):
    """Bytes for people."""
    for unit in ('B', 'KB', 'MB', 'GB', 'TB'):
        if count < 1000 or unit == 'TB':
            return f'{count:.3g} {unit}'
        count /= 1000


def head_of(cfg, classes):
    """The head of a config for a number of classes; its text comes from the
    backbone."""
    options = dict(cfg.model.head, num_classes=classes,
                   dim=joint_width(cfg.model.backbone.arch))
    return MODELS.build(options)


def main():
    args = parse_args()
    cfg = load_config(args.config)
    width = joint_width(cfg.model.backbone.arch)
    for text in args.sets:
        name, *numbers = text.split(':')
        images, classes, labels, kilobytes = map(float, numbers)
        images, classes = int(images), int(classes)
        code = 2 if 2 * classes <= 1 << 16 else 4
        rows, dim = row_shape(GRID, width)
        with torch.device('cpu'):
            head = head_of(cfg, classes)
        learned = sum(p.numel() for p in head.parameters())
        head.prototypes.prepare(images)
        buffers = sum(b.numel() * b.element_size() for b in head.buffers())
        print(f'{name}: {images:,} images, {classes:,} classes, '
              f'{labels:g} known labels of an image')
        for what, value in (
                ('labels, dense int8', size(images * classes)),
                ('labels, sparse', size(
                    images * labels * code + 8 * (images + 1))),
                ('numbers of images', size(8 * images)),
                (f'images of {kilobytes:g} KB', size(images * kilobytes * 1e3)),
                (f'shards of {args.shard_mb:g} MB', f'{images * kilobytes / 1e3 / args.shard_mb:,.0f}'),  # noqa: E501
                ('feature cache, fp16, one view', size(
                    images * rows * dim * 2)),
                ('learned values', size(4 * learned)),
                ('with gradients and AdamW', size(16 * learned)),
                ('prototypes and other state', size(buffers)),
                ('sent by each rank in a step, about', size(8 * learned)),
                ('steps of an epoch, ' + ', '.join(
                    f'{n} ranks' for n in args.ranks), ', '.join(
                        f'{-(-images // (n * args.batch_size)):,}'
                        for n in args.ranks)),
                (f'hours of an epoch at {args.speed:g} images/s of a rank',
                 ', '.join(f'{images / n / args.speed / 3600:.2f}'
                           for n in args.ranks)),
                ('image bytes read in a second', ', '.join(
                    size(args.speed * n * kilobytes * 1e3)
                    for n in args.ranks))):
            print(f'  {what:46} {value}')


if __name__ == '__main__':
    main()
