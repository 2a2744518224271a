"""Start of a training on a large table of labels: seconds until the first
batch, and memory per process: python tools/benchmarks/load.py

The table is made: 100,000 images of 500 classes, a tenth of the labels known.
Images are tiny: what is measured is the table."""
import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from mmengine.runner import Runner

from trm_ml_mm.engine import fill_classes, load_config


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=100_000)
    parser.add_argument('--classes', type=int, default=500)
    parser.add_argument('--workers', type=int, default=2)
    return parser.parse_args()


def write_data(root, images, classes):
    (root / 'images').mkdir()
    _, image = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))
    cells = np.random.RandomState(1).choice(
        ['', '0', '1'], (images, classes), p=[.9, .09, .01])
    with open(root / 'train.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['image', *(f'class {c}' for c in range(classes))])
        for i, row in enumerate(cells):
            (root / f'images/{i}.jpg').write_bytes(image.tobytes())
            writer.writerow([f'{i}.jpg', *row])


def memory(pid):
    """Megabytes of a process: its share of all pages it uses."""
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines
               if line.startswith('Pss:')) / 1024


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, args.images, args.classes)
        before = memory(os.getpid())
        begin = time.perf_counter()
        cfg = load_config('configs/trm_ml_csv.py', {
            'data_root': f'{folder}/',
            'train_dataloader.num_workers': args.workers})
        fill_classes(cfg, 'train')
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        read = time.perf_counter() - begin
        batches = iter(loader)
        next(batches)
        seconds = time.perf_counter() - begin
        workers = [worker.pid for worker in batches._workers]
        print(f'{args.images} images, {args.classes} classes: read after '
              f'{read:.1f} s, first batch after {seconds:.1f} s')
        print(f'main process {memory(os.getpid()) - before:.0f} MB more than '
              f'before ({before:.0f} MB)')
        print('workers', ', '.join(f'{memory(pid):.0f} MB'
                                   for pid in workers))
        del batches


if __name__ == '__main__':
    main()
