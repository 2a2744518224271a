"""Features of a frozen tower, stored in memory-mapped files.

A cache is a folder with the features of one data set: ``features.npy``
``(N, K, 1 + L, D)`` (N images, K views, rows as in
:mod:`~trm_ml_mm.models.towers.layout`), ``state.npy`` ``(N, K)``, and
``meta.json``, which says what the features belong to.
"""
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.models.towers import row_shape
from trm_ml_mm.utils.io import existing, read_json, write_text

TODO, DONE, UNREADABLE = 0, 1, 2


class CacheMeta(NamedTuple):
    """What a cache belongs to. All of it must agree with the run that uses
    the cache."""

    tower: str  # fingerprint of the frozen tower
    normalisation: dict  # of the images: mean, std, order of channels
    pipeline: list  # the transforms before it, as configs
    files: str  # fingerprint of the images
    views: int  # K
    grid: Tuple[int, int]  # height and width of the dense map
    dim: int  # D
    dtype: str  # 'float16' or 'float32'

    def shape(self, images: int) -> Tuple[int, int, int, int]:
        """Of ``features.npy`` for a number of images: (N, K, 1 + L, D)."""
        return images, self.views, *row_shape(self.grid, self.dim)


def image_keys(paths: Sequence[str], root: str = '') -> List[list]:
    """For every image its path relative to ``root`` and its size in bytes (-1
    if there is no file, as for rendered scenes or missing images)."""
    keys = []
    for path in paths:
        name = os.path.relpath(path, root) if root else path
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        keys.append([name, size])
    return keys


def fingerprint_files(keys: List[list]) -> str:
    """16 hexadecimal digits over names and sizes, in this order."""
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


class FeatureCache:
    """One folder of features, open for reading or filling.

    Args:
        folder: The cache.
        write: Open it for filling.

    Raises:
        FileNotFoundError: If there is no cache.
        ValueError: If a file of it is damaged.
    """

    def __init__(self, folder: Union[str, Path], write: bool = False):
        self.folder = Path(folder)
        advice = 'make it with tools/cache_features.py'
        content = read_json(self.folder / 'meta.json', 'feature cache',
                            advice=advice)
        try:
            self.meta = CacheMeta(**dict(content, grid=tuple(content['grid'])))
        except (TypeError, KeyError) as error:
            raise ValueError(
                f'{self.folder} is a feature cache of another version of '
                'trm_ml_mm, or damaged: delete it and make it again with '
                'tools/cache_features.py.') from error
        mode = 'r+' if write else 'r'
        try:
            self.features = np.load(
                existing(self.folder / 'features.npy', 'Cache file', advice),
                mmap_mode=mode)
            self.state = np.load(
                existing(self.folder / 'state.npy', 'Cache file', advice),
                mmap_mode=mode)
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(f'{self.folder} is damaged ({error}): delete it '
                             'and make it again.') from error

    @classmethod
    def create(cls, folder: Union[str, Path], meta: CacheMeta,
               images: int) -> 'FeatureCache':
        """Create the files at their full size.

        Raises:
            OSError: If the disk has too little room; says how much is needed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shape = meta.shape(images)
        need = int(np.prod(shape)) * np.dtype(meta.dtype).itemsize
        free = shutil.disk_usage(folder).free
        if need > free:
            raise OSError(
                f'The features need {need / 1e9:.1f} GB and {folder} has '
                f'{free / 1e9:.1f} GB free: take another --out, fewer --views, '
                'or --dtype float16.')
        features = np.lib.format.open_memmap(
            folder / 'features.npy', 'w+', meta.dtype, shape)
        if hasattr(os, 'posix_fallocate'):  # or a full disk kills the run
            with open(folder / 'features.npy', 'r+b') as file:
                os.posix_fallocate(file.fileno(), 0, features.offset + need)
        np.save(folder / 'state.npy', np.zeros(shape[:2], np.uint8))
        # Written last: a cache with this file is complete, if not yet filled.
        write_text(folder / 'meta.json', json.dumps(meta._asdict()))
        return cls(folder, write=True)

    def check(self, meta: CacheMeta) -> None:
        """Refuse to serve a run with other settings.

        Raises:
            ValueError: Names what differs.
        """
        what = dict(
            tower='another frozen tower (weights, architecture or size)',
            normalisation='another normalisation of the images',
            pipeline='another pipeline',
            files='other images (their list, or a file\'s size, changed)',
            views='another number of views',
            grid='another input size',
            dim='another joint width',
            dtype='another precision')
        for name, own in meta._asdict().items():
            if getattr(self.meta, name) != own:
                raise ValueError(
                    f'The features in {self.folder} belong to {what[name]}: '
                    'compute them again, in another folder, with '
                    'tools/cache_features.py.')

    def check_complete(self) -> None:
        """Refuse an incomplete cache.

        Raises:
            ValueError: If views are missing.
        """
        missing = int((np.asarray(self.state) == TODO).sum())
        if missing:
            raise ValueError(
                f'{self.folder} lacks {missing} of {self.state.size} views: '
                'run tools/cache_features.py again, it continues where it '
                'stopped.')
