"""Find images that are the same picture: equal files, and copies that were
saved again, resized or mirrored.

A perceptual hash has 256 bits: the signs of the lowest 16 x 16 frequencies of
the grey image (pHash; Zauner, "Implementation and benchmarking of perceptual
image hash functions", 2010, has 8 x 8 and cuts at the median). Two copies of a
picture differ in few bits, two pictures in about half of them. Mirroring
changes the sign of every odd horizontal frequency and nothing else, so one
hash finds mirrored copies too.
"""
import hashlib
from multiprocessing.pool import ThreadPool
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from trm_ml_mm.utils.screen import track

SIDE = 16  # frequencies in each direction; the hash has SIDE * SIDE bits
SAMPLES = 4 * SIDE  # side of the small image that they are taken from
# Copies differ in fewer bits, pictures in more: tools/benchmarks/duplicates.py
# prints by how much.
NEAR_BITS = 32
BLOCK = 2048  # hashes that are compared with as many others at a time


class ImageScan(NamedTuple):
    """What one look at an image file finds."""

    digest: str  # SHA-256 of the file; '' if there is none
    bits: Optional[np.ndarray]  # see perceptual_hash; None if not decoded
    problem: Optional[str]  # why it cannot be used; None: it can


def scan_image(path: str) -> ImageScan:
    """Hash an image file, and decode it as training does (with OpenCV)."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        return ImageScan('', None, 'does not exist')
    except OSError as error:
        return ImageScan('', None, error.strerror or str(error))
    digest = hashlib.sha256(content).hexdigest()
    image = None
    if content:
        image = cv2.imdecode(np.frombuffer(content, np.uint8),
                             cv2.IMREAD_GRAYSCALE)
    if image is None:
        return ImageScan(digest, None, 'cannot be decoded')
    return ImageScan(digest, perceptual_hash(image), None)


def scan_images(paths: Sequence[str], threads: int = 8) -> List[ImageScan]:
    """:func:`scan_image` of many files, with a progress bar."""
    with ThreadPool(threads) as pool:
        return list(track(pool.imap(scan_image, paths, 8), 'Reading images',
                          len(paths)))


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """The perceptual hash of a grey image.

    Args:
        image: ``(H, W)`` uint8.

    Returns:
        ``(256,)`` bool; bit ``16 y + x`` is the sign of vertical frequency y
        and horizontal frequency x.
    """
    small = cv2.resize(image, (SAMPLES, SAMPLES), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    return (frequencies > 0).ravel()


def near_pairs(bits: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Pairs of hashes that differ in at most ``most`` bits, mirrored or not.

    Every hash is compared with every other one, by products of matrices: for
    100,000 hashes this takes minutes, and little memory.

    Args:
        bits: ``(N, 256)`` bool.
        most: Number of bits.

    Yields:
        ``(K, 2)`` indices (i, j) with i < j, block by block.
    """
    signs = np.where(bits, 1, -1).astype(np.float32)
    # Equal bits minus different bits; mirroring negates those of odd columns.
    even = np.ascontiguousarray(signs[:, 0::2])
    odd = np.ascontiguousarray(signs[:, 1::2])
    least = bits.shape[1] - 2 * most
    for row in range(0, len(bits), BLOCK):
        for column in range(row, len(bits), BLOCK):
            rows, columns = (slice(start, start + BLOCK)
                             for start in (row, column))
            agreement = odd[rows] @ odd[columns].T
            np.abs(agreement, out=agreement)
            agreement += even[rows] @ even[columns].T
            pairs = np.argwhere(agreement >= least) + (row, column)
            yield pairs[pairs[:, 0] < pairs[:, 1]]


class Partition:
    """Sets of indices that grow together (union-find).

    Args:
        count: Indices 0..count-1, each in a set of its own.
    """

    def __init__(self, count: int):
        self.parent = np.arange(count)

    def roots(self) -> np.ndarray:
        """``(count,)`` the smallest index of each one's set."""
        while True:
            shorter = self.parent[self.parent]
            if np.array_equal(shorter, self.parent):
                return shorter
            self.parent = shorter

    def join(self, pairs: np.ndarray) -> None:
        """Put both indices of each pair into one set.

        Args:
            pairs: ``(K, 2)``.
        """
        pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
        while len(pairs):
            for a, b in self.roots()[pairs[:BLOCK]].tolist():
                a, b = sorted((self._root(a), self._root(b)))
                self.parent[b] = a
            # Of many pairs within one set, most need no second look.
            pairs = pairs[BLOCK:]
            ends = self.roots()[pairs]
            pairs = pairs[ends[:, 0] != ends[:, 1]]

    def _root(self, index: int) -> int:
        while self.parent[index] != index:
            index = int(self.parent[index])
        return index

    def join_equal(self, keys: Sequence) -> None:
        """Put indices with equal keys into one set; None equals nothing."""
        first = {}
        self.join([(first.setdefault(key, i), i)
                   for i, key in enumerate(keys) if key is not None])

    def groups(self) -> List[List[int]]:
        """The sets with more than one index, in the order of the first."""
        found = {}
        for index, root in enumerate(self.roots().tolist()):
            found.setdefault(root, []).append(index)
        return [group for group in found.values() if len(group) > 1]


def join_duplicates(partition: Partition, scans: Sequence[ImageScan],
                    near_bits: int = NEAR_BITS) -> Tuple[int, int]:
    """Put images that are the same picture into one set.

    Args:
        partition: Of as many indices; changed in place.
        scans: Of :func:`scan_image`.
        near_bits: Hashes that differ in at most so many of 256 bits are near
            duplicates. 0: equal hashes only.

    Returns:
        How many images are an exact, and how many a near duplicate of an
        earlier one.

    Raises:
        ValueError: If ``near_bits`` is not in 0..127.
    """
    if not 0 <= near_bits < SIDE * SIDE // 2:
        raise ValueError(
            f'near duplicates differ in 0 to {SIDE * SIDE // 2 - 1} bits, got '
            f'{near_bits}: two different pictures differ in about half of all '
            'bits.')
    sets = Partition(len(scans))
    sets.join_equal([scan.digest or None for scan in scans])
    roots = sets.roots()
    exact = len(scans) - len(set(roots.tolist()))
    decoded = np.array([i for i, scan in enumerate(scans)
                        if scan.bits is not None and roots[i] == i], np.int64)
    if len(decoded):
        # Equal hashes first: pairs of many equal ones would be too many.
        packed = np.packbits([scans[i].bits for i in decoded], axis=1)
        _, first, number = np.unique(packed, axis=0, return_index=True,
                                     return_inverse=True)
        unique = decoded[first]
        sets.join(np.stack([decoded, unique[number.ravel()]], 1))
        bits = np.stack([scans[i].bits for i in unique])
        blocks = -(-len(bits) // BLOCK)
        for pairs in track(near_pairs(bits, near_bits), 'Comparing images',
                           blocks * (blocks + 1) // 2):
            sets.join(unique[pairs])
    roots = sets.roots()
    partition.join(np.stack([np.arange(len(scans)), roots], 1))
    return exact, len(scans) - len(set(roots.tolist())) - exact
