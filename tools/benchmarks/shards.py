"""Images in files and in shards: python tools/benchmarks/shards.py

Writes made JPEG files and packs them into shards, reads both in random order,
each time with an empty page cache for these files, and opens an index of 9
million made names."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from trm_ml_mm.datasets import ShardFolder
from trm_ml_mm.datasets.shards import ImageList, write_shards
from trm_ml_mm.datasets.shards.layout import RECORD, name_hash

OPEN = '''
import json, sys, time
from pathlib import Path
from trm_ml_mm.datasets import ShardFolder

def memory():
    """Megabytes without mapped files, which processes share, and with them."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    kb = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return kb['Anonymous:'] / 1e3, kb['Rss:'] / 1e3

before, start = memory(), time.perf_counter()
folder = ShardFolder(sys.argv[1])
opened = time.perf_counter() - start
names, start = json.load(open(sys.argv[2])), time.perf_counter()
found = [folder.find(name) is not None for name in names]
seconds = time.perf_counter() - start
assert all(found)
own, whole = (a - b for a, b in zip(memory(), before))
print(f'{len(folder):,} images: opened in {1000 * opened:.1f} ms, a look-up '
      f'takes {1e6 * seconds / len(names):.0f} us; after {len(names):,} of '
      f'them: {own:.0f} MB of its own, {whole:.0f} MB with what it shares')
'''


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=20_000)
    parser.add_argument('--side', type=int, default=256, help='in pixels')
    parser.add_argument('--index', type=int, default=9_000_000,
                        help='images of the large index')
    parser.add_argument('--folder', help='on the disk to measure')
    return parser.parse_args()


def write_files(root, count, side):
    """JPEG files in folders of a thousand; some hundred different ones."""
    rng, pictures = np.random.RandomState(0), []
    for _ in range(100):
        small = rng.randint(0, 255, (side // 8, side // 8, 3), np.uint8)
        large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0, 8, large.shape), 0, 255)
        pictures.append(
            cv2.imencode('.jpg', noisy.astype(np.uint8))[1].tobytes())
    names = [f'{i // 1000:03}/{i:07}.jpg' for i in range(count)]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(pictures[i % len(pictures)])
    return names


def forget(paths):
    """Drop files from the page cache."""
    os.sync()
    for path in paths:
        with open(path, 'rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(read, names):
    """Images a second, and megabytes."""
    start, size = time.perf_counter(), 0
    for name in names:
        size += len(read(name))
    seconds = time.perf_counter() - start
    return len(names) / seconds, size / 1e6 / seconds


def show(what, rates):
    print(f'{what}: {rates[0]:,.0f} images/s, {rates[1]:.0f} MB/s')


def large_index(folder, count):
    """An index of made names, and ten thousand of them."""
    records = np.zeros(count, RECORD)
    names = [f'train/{i:016x}.jpg' for i in range(count)]
    records['hash'] = np.fromiter(map(name_hash, names), np.uint64, count)
    records.sort(order='hash')
    np.save(folder / 'index.npy', records)
    chosen = np.random.RandomState(0).randint(0, count, 10_000)
    (folder / 'names.json').write_text(json.dumps([names[i] for i in chosen]))


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder)
        (root / 'files').mkdir()
        names = write_files(root / 'files', args.images, args.side)
        paths = [str(root / 'files' / name) for name in names]
        forget(paths)
        start = time.perf_counter()
        done = write_shards(ImageList(
            paths, [str(root / 'files')] * len(paths)), root / 'shards', 10**8)
        seconds = time.perf_counter() - start
        size = sum(map(os.path.getsize, paths)) / 1e6
        print(f'{done.images:,} images of {1000 * size / done.images:.0f} kB '
              f'in {done.shards} shards: written in {seconds:.1f} s, '
              f'{size / seconds:.0f} MB/s')
        index = (root / 'shards/index.npy').stat().st_size
        print(f'index: {index / done.images:.1f} bytes an image')
        order = np.random.RandomState(1).permutation(names).tolist()
        shards = ShardFolder(root / 'shards')
        for what in ('cold', 'warm'):
            if what == 'cold':
                forget([*paths, *(root / 'shards').iterdir()])
            show(f'files, {what}', rate(
                lambda name: (root / 'files' / name).read_bytes(), order))
            show(f'shards, {what}', rate(shards.read, order))
        (root / 'large').mkdir()
        large_index(root / 'large', args.index)
        forget([root / 'large/index.npy'])
        subprocess.run([sys.executable, '-W', 'ignore', '-c', OPEN,
                        root / 'large', root / 'large/names.json'],
                       check=True)


if __name__ == '__main__':
    main()
