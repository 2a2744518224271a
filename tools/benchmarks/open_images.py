"""Import, open and load made labels of the size of Open Images, and print time
and memory: python tools/benchmarks/open_images.py

9,011,219 images and 9,605 classes; the labels of an image are drawn. The label
file names images in random order. There are no pixels: what is loaded are
entries and labels. Each figure is of processes of its own."""
import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from mmengine.logging import MMLogger
from pyarrow import csv

from trm_ml_mm.datasets import LeanSampler, OpenImages, PartialLabelDataset

CHUNK = 250_000  # images that are written at once
DIGITS = np.frombuffer(b'0123456789abcdef', np.uint8)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=9_011_219)
    parser.add_argument('--labels', type=float, default=6.39,
                        help='of an image, on average')
    parser.add_argument('--classes', type=int, default=9_605)
    parser.add_argument('--ranks', type=int, default=2)
    parser.add_argument('--workers', type=int, default=2, help='of each rank')
    parser.add_argument('--batches', type=int, default=500,
                        help='of 32 images, that each rank loads')
    parser.add_argument('--folder', help='default: a temporary one')
    parser.add_argument('--import-only', help=argparse.SUPPRESS)
    return parser.parse_args()


def strings(text):
    """``(K, n)`` bytes -> K strings."""
    offsets = np.arange(len(text) + 1, dtype=np.int32) * text.shape[1]
    return pa.Array.from_buffers(pa.string(), len(text), [
        None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))])


def write_labels(root, images, labels, classes):
    """The files of Open Images; returns the number of labels."""
    rng = np.random.default_rng(0)
    mids = [f'/m/{c:06x}' for c in range(classes)]
    (root / 'train').mkdir()
    (root / 'oidv6-class-descriptions.csv').write_text(
        'LabelName,DisplayName\n' + ''.join(
            f'{mid},class {c}\n' for c, mid in enumerate(mids)))
    (root / 'oidv6-classes-trainable.txt').write_text('\n'.join(mids))
    numbers = rng.permutation(images).astype(np.uint64) * np.uint64(
        2**64 // images)
    names = pa.array(mids)
    words = pa.array(['verification', 'crowdsource-verification'])
    options = csv.WriteOptions(include_header=False, quoting_style='none')
    total = 0
    with open(root / 'labels.csv', 'wb') as file:
        file.write(b'ImageID,Source,LabelName,Confidence\n')
        for start in range(0, images, CHUNK):
            some = numbers[start:start + CHUNK]
            count = rng.poisson(labels - 1, len(some)) + 1
            row = np.repeat(np.arange(len(some)), count)
            c = (classes * rng.random(len(row))**3).astype(np.int64)
            pair = np.unique(row * classes + c)  # once each
            row, c = pair // classes, pair % classes
            digits = some[:, None] >> np.arange(60, -4, -4).astype(np.uint64)
            text = DIGITS[(digits & np.uint64(15)).astype(np.uint8)]
            table = pa.table([
                strings(text[row]), words.take(rng.integers(0, 2, len(row))),
                names.take(c), pa.array((rng.random(len(row)) < .345
                                         ).astype(np.int8))],
                names=['ImageID', 'Source', 'LabelName', 'Confidence'])
            csv.write_csv(table, file, options)
            total += len(row)
    return total


def built(root):
    return OpenImages('labels.csv', data_root=str(root), pipeline=[])


def memory(pid='self'):
    """Of a process, in MB: resident; what no other process shares; what is
    resident of the label files; and its part of that, if all who share it
    divide it."""
    found = dict(resident=0., own=0., mapped=0., share=0.)
    label_file = False
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        name, *cells = line.split()
        if not name.endswith(':'):  # the next mapping
            label_file = line.endswith('.npy')
            continue
        size = float(cells[0]) / 1e3 if cells[-1] == 'kB' else 0
        found['resident'] += size * (name == 'Rss:')
        found['own'] += size * (name in ('Private_Clean:', 'Private_Dirty:'))
        if label_file:
            found['mapped'] += size * (name == 'Rss:')
            found['share'] += size * (name == 'Pss:')
    return found


class Labels(torch.utils.data.Dataset):
    """Labels of images, as a loader of a training makes them."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return torch.from_numpy(self.dataset.get_data_info(index)['gt_score'])


def rank(root, args, report, done):
    """A training's process, without a model."""
    torch.set_num_threads(1)
    before = memory()['resident']
    start = time.perf_counter()
    dataset = PartialLabelDataset(built(root), 'all')
    opened = time.perf_counter() - start
    batches = iter(torch.utils.data.DataLoader(
        Labels(dataset), 32, num_workers=args.workers,
        sampler=LeanSampler(dataset, seed=0)))
    start = time.perf_counter()
    for _ in range(args.batches):
        next(batches)
    report.put(dict(
        before=before, opened=opened, pid=os.getpid(),
        speed=32 * args.batches / (time.perf_counter() - start),
        workers=[child.pid for child in multiprocessing.active_children()]))
    done.wait()  # until the memory of all processes is measured


def main():
    args = parse_args()
    if args.import_only:
        MMLogger.get_instance('quiet', log_level='ERROR')
        built(args.import_only)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(args.folder or folder, 'open_images')
        if not (root / 'labels.csv').exists():
            root.mkdir(parents=True)
            total = write_labels(root, args.images, args.labels, args.classes)
            print(f'{args.images:,} images, {args.classes:,} classes, '
                  f'{total:,} labels, '
                  f'{(root / "labels.csv").stat().st_size / 1e9:.2f} GB of CSV')
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, '--import-only', str(root)],
                       check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f'import: {time.perf_counter() - start:.0f} s, peak memory of '
              f'the process {peak:.2f} GB')
        stored = list((root / 'imported').glob('*/*.npy'))
        print('imported files: ' + ', '.join(
            f'{path.name} {path.stat().st_size / 1e6:.0f} MB'
            for path in sorted(stored)))
        context = multiprocessing.get_context('fork')
        report, done = context.Queue(), context.Event()
        ranks = [context.Process(target=rank, args=(root, args, report, done))
                 for _ in range(args.ranks)]
        for process in ranks:
            process.start()
        found = [report.get() for _ in ranks]
        pids = [pid for one in found for pid in (one['pid'], *one['workers'])]
        sizes = {pid: memory(pid) for pid in pids}
        done.set()
        for process in ranks:
            process.join()
        print(f'{args.ranks} ranks with {args.workers} workers each')
        for one in found:
            print(f'rank: opened in {one["opened"]:.2f} s, labels of '
                  f'{one["speed"]:.0f} images/s')
            for name, pid in (('rank', one['pid']),
                              *(('worker', pid) for pid in one['workers'])):
                size = sizes[pid]
                print(f'  {name}: {size["resident"] - one["before"]:.0f} MB '
                      'more than the interpreter with its libraries '
                      f'({one["before"]:.0f} MB); {size["own"]:.0f} MB of all '
                      'are its own')
        print(f'label files: {len(pids)} processes see '
              f'{sum(one["mapped"] for one in sizes.values()):.0f} MB of them,'
              f' which are {sum(one["share"] for one in sizes.values()):.0f} '
              'MB in memory')


if __name__ == '__main__':
    main()
