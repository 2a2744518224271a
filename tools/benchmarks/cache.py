"""Compare an epoch of training from cached features with one from images, in
one run: python tools/benchmarks/cache.py --arch RN50

Photographs are noise of COCO's size, weights are random. The steps of the real
training loop are timed, loading included."""
import argparse
import csv
import tempfile
from pathlib import Path

import cv2
import numpy as np

from trm_ml_mm.datasets import COCO_CLASSES
from trm_ml_mm.engine import build_runner, load_config
from trm_ml_mm.features import CacheFiller, splits_to_cache
from trm_ml_mm.models.towers import save_random_weights

CONFIG = 'configs/trm_ml_csv.py'


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--arch', default='RN50')
    parser.add_argument('--images', type=int, default=128)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument(
        '--workers', type=int, default=2, help='of the loader of images; '
        'features are loaded by the main process')
    parser.add_argument('--fixed-prompts', action='store_true')
    return parser.parse_args()


def write_data(root, count):
    """Photos of 640 x 480 and labels of COCO's 80 classes, a tenth known."""
    rng = np.random.RandomState(0)
    (root / 'images').mkdir()
    rows = [['image', *COCO_CLASSES]]
    for i in range(count):
        small = rng.randint(0, 255, (30, 40, 3), np.uint8)
        cv2.imwrite(str(root / f'images/{i}.jpg'),
                    cv2.resize(small, (640, 480)))
        rows.append([f'{i}.jpg', *(
            int(rng.rand() < .1) if rng.rand() < .1 else ''
            for _ in COCO_CLASSES)])
    for name, some in (('train', rows), ('val', rows[:9])):
        with open(root / f'{name}.csv', 'w', newline='') as file:
            csv.writer(file).writerows(some)


def seconds_per_epoch(options, work_dir):
    """Of the second epoch: the first one warms up."""
    runner = build_runner(CONFIG, work_dir, dict(
        options, val_cfg=None, val_dataloader=None, val_evaluator=None,
        test_cfg=None, test_dataloader=None, test_evaluator=None,
        **{'train_cfg.max_epochs': 2, 'experiment_name': Path(work_dir).name,
           'default_hooks.checkpoint.save_best': None}))
    runner.train()
    times = runner.message_hub.get_scalar('train/time').data[0]
    return times[len(times) // 2:].sum()


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, args.images)
        save_random_weights(args.arch, str(root / 'weights.pt'))
        options = {
            'data_root': f'{folder}/',
            'arch': args.arch,
            'model.backbone.weights': str(root / 'weights.pt'),
            'model.backbone.prompt.learnable': not args.fixed_prompts,
            'train_dataloader.batch_size': args.batch_size,
            'train_dataloader.num_workers': args.workers,
        }
        cfg = load_config(CONFIG, options)
        for split in splits_to_cache(cfg):
            CacheFiller(cfg, split, root / 'cache', views=1).fill(
                args.batch_size, args.workers)
        cached = {**options, 'feature_cache': str(root / 'cache'),
                  'train_dataloader.num_workers': 0}
        times = {name: seconds_per_epoch(o, str(root / name))
                 for name, o in (('images', options), ('features', cached))}
    print(f'{args.arch}, 448 px, {args.images} images, batch '
          f'{args.batch_size}, 80 classes, '
          f'{"fixed" if args.fixed_prompts else "learned"} prompts')
    for name, value in times.items():
        print(f'epoch from {name:9} {value:8.2f} s')
    print(f'ratio {times["images"] / times["features"]:.1f}')


if __name__ == '__main__':
    main()
