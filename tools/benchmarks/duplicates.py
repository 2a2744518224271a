"""In how many bits the perceptual hashes of copies and of different pictures
differ, and how long it takes to compare many:
python tools/benchmarks/duplicates.py FOLDER"""
import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from trm_ml_mm.datasets.duplicates import (
    NEAR_BITS,
    SIDE,
    near_pairs,
    perceptual_hash,
)


def saved_again(image, quality):
    _, content = cv2.imencode('.jpg', image,
                              [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def scaled(image, factor):
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)


def cropped(image, ratio):
    h, w = (round(side * ratio) for side in image.shape[:2])
    return image[h:-h or None, w:-w or None]


COPIES = {
    'JPEG quality 30': lambda image: saved_again(image, 30),
    'JPEG quality 10': lambda image: saved_again(image, 10),
    'half size': lambda image: scaled(image, .5),
    'a third, JPEG quality 50': lambda image: saved_again(
        scaled(image, 1 / 3), 50),
    'twice the size': lambda image: scaled(image, 2),
    'squeezed to 224 x 224': lambda image: cv2.resize(image, (224, 224)),
    'mirrored': lambda image: image[:, ::-1],
    'mirrored, half size, JPEG quality 50': lambda image: saved_again(
        scaled(image[:, ::-1], .5), 50),
    'brighter': lambda image: cv2.convertScaleAbs(image, alpha=1.2, beta=15),
    'cropped by 1% on each side': lambda image: cropped(image, .01),
    'cropped by 3% on each side': lambda image: cropped(image, .03),
}


def bits_of(image):
    return perceptual_hash(cv2.cvtColor(np.ascontiguousarray(image),
                                        cv2.COLOR_BGR2GRAY))


def distances(one, other):
    """Bits that differ, mirrored or not: (..., 256) -> (...)."""
    mirrored = other.reshape(*other.shape[:-1], SIDE, SIDE).copy()
    mirrored[..., 1::2] ^= True
    return np.minimum((one != other).sum(-1),
                      (one != mirrored.reshape(other.shape)).sum(-1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='of photographs')
    parser.add_argument('--hashes', type=int, default=100_000,
                        help='how many are compared')
    args = parser.parse_args()
    paths = sorted(p for p in args.folder.rglob('*')
                   if p.suffix in ('.jpg', '.png'))
    images = [cv2.imread(str(path)) for path in paths]
    own = np.stack([bits_of(image) for image in images])
    table = Table('copy', 'median', '99%', 'most', 'found',
                  title=f'Bits of {SIDE * SIDE} that differ, '
                  f'{len(images)} photographs')
    for name, change in COPIES.items():
        found = distances(own, np.stack([
            bits_of(change(image)) for image in images]))
        table.add_row(name, f'{np.median(found):g}',
                      f'{np.percentile(found, 99):.0f}', str(found.max()),
                      f'{100 * (found <= NEAR_BITS).mean():.1f}%')
    others = np.concatenate([distances(own[i], own[i + 1:])
                             for i in range(len(own) - 1)])
    console = Console()
    console.print(table)
    console.print(f'Two different photographs, {len(others)} pairs: at least '
                  f'{others.min()}, median {np.median(others):g}. Copies '
                  f'differ in at most {NEAR_BITS}.', highlight=False)
    bits = np.random.default_rng(0).random((args.hashes, SIDE * SIDE)) < .5
    start = time.perf_counter()
    pairs = sum(map(len, near_pairs(bits, NEAR_BITS)))
    console.print(f'{args.hashes} random hashes: {pairs} pairs, '
                  f'{time.perf_counter() - start:.0f} s', highlight=False)


if __name__ == '__main__':
    main()
