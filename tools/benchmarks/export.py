"""Do exported files agree with PyTorch on photographs, and how fast are they?
python tools/benchmarks/export.py photos/

For each CLIP: weights with random values, a short training on random labels,
and one file of each format, which takes the photographs as they are. No label
means anything; the arithmetic is that of a real CLIP.
"""
import argparse
import csv
import platform
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from trm_ml_mm.apis import load_model
from trm_ml_mm.datasets.images import find_images
from trm_ml_mm.engine import build_runner, close
from trm_ml_mm.export import FORMATS, export_model
from trm_ml_mm.export.check import BATCHES, SPEED_BATCHES
from trm_ml_mm.labels import class_names
from trm_ml_mm.models.towers import save_random_weights

CLASSES = class_names('voc')
TRAINING_IMAGES = 24


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', help='folder of photographs')
    parser.add_argument('--archs', nargs='+', default=['RN50', 'ViT-B-32'])
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS),
                        default=['onnx', 'torch_export'])
    parser.add_argument('--images', type=int, default=50)
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=5)
    return parser.parse_args()


def trained(arch, photos, size, folder):
    """Path of a checkpoint of one epoch on random labels."""
    weights = folder / f'{arch}.pt'
    save_random_weights(arch, str(weights))
    labels = np.random.RandomState(0).randint(-1, 2, (len(photos),
                                                      len(CLASSES)))
    words = {1: '1', 0: '0', -1: ''}
    (folder / 'images').mkdir(exist_ok=True)
    for path in photos:
        shutil.copy(path, folder / 'images')
    for split in ('train', 'val'):
        with open(folder / f'{split}.csv', 'w', newline='') as file:
            table = csv.writer(file)
            table.writerow(['image', *CLASSES])
            table.writerows([Path(path).name, *(words[v] for v in row)]
                            for path, row in zip(photos, labels))
    options = dict(arch=arch, image_size=size, data_root=f'{folder}/', epochs=1)
    options.update({
        'model.backbone.weights': str(weights),
        'train_dataloader.batch_size': 8,
        **{f'{split}_dataloader.num_workers': 0
           for split in ('train', 'val', 'test')}})
    if not arch.startswith('RN'):
        options['model.backbone.quick_gelu'] = True
    build_runner('configs/trm_ml_csv.py', str(folder / arch),
                 options=options).train()
    close()
    return folder / arch / 'epoch_1.pth'


def main():
    args = parse_args()
    photos = find_images(args.photos)[:args.images]
    table = Table('CLIP', 'format', 'MB', 'scores', 'logits', 'maps',
                  *(f'{who}, batch {size}' for size in SPEED_BATCHES
                    for who in ('PyTorch', 'file')))
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.archs:
            path = trained(arch, photos[:TRAINING_IMAGES], args.image_size,
                           Path(folder))
            for kind in args.formats:
                report = export_model(
                    load_model(path), Path(folder, 'file'), kind, maps=True,
                    check_images=photos, rounds=args.rounds)
                table.add_row(
                    arch, kind, f'{report.size / 1e6:.0f}',
                    *(f'{v:.1e}' for v in report.differences.values()),
                    *(f'{ms:.1f} ms' for row in report.speed
                      for ms in row[1:]))
    console = Console(width=140)
    console.print(
        f'{len(photos)} photographs, {args.image_size} px, batches of '
        f'{" and ".join(map(str, BATCHES))}; largest differences to PyTorch, '
        f'and time per image (median of {args.rounds}); '
        f'{platform.machine()}, {torch.get_num_threads()} threads, torch '
        f'{torch.__version__}', soft_wrap=True, highlight=False)
    console.print(table)


if __name__ == '__main__':
    main()
