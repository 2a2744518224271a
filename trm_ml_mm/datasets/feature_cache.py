"""Features of a frozen tower, kept in memory-mapped files.

A cache is a folder of one data set's features: ``features.npy``
``(N, K, 1 + L, D)`` (N images, K views; the global embedding, then the L places
of the dense map), ``state.npy`` ``(N, K)``, and ``meta.json``, which says what
the features are of.
"""
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from trm_ml_mm.registry import TRANSFORMS

from .base import UnreadableImage
from .files import existing, read_json

TODO, DONE, UNREADABLE = 0, 1, 2


class CacheMeta(NamedTuple):
    """What a cache is of; all of it must agree with the run that uses it."""

    tower: str  # fingerprint of the frozen tower
    pipeline: list  # the transforms before it, as configs
    files: str  # fingerprint of the images
    views: int  # K
    grid: Tuple[int, int]  # height and width of the dense map
    dim: int  # D
    dtype: str  # 'float16' or 'float32'

    def shape(self, images: int) -> Tuple[int, int, int, int]:
        places = self.grid[0] * self.grid[1]
        return images, self.views, 1 + places, self.dim


def image_keys(paths: Sequence[str], root: str = '') -> List[list]:
    """Of every image its path within ``root``, and its size in bytes (-1
    where there is no file, as for drawn scenes or missing images)."""
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
    """16 hexadecimal digits over names and sizes, in their order."""
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


class FeatureCache:
    """One folder of features, opened for reading or filling.

    Args:
        folder: The cache.
        write: Open to fill it.

    Raises:
        FileNotFoundError: If there is no cache.
        ValueError: If a file of it is damaged.
    """

    def __init__(self, folder: Union[str, Path], write: bool = False):
        self.folder = Path(folder)
        advice = 'make it with tools/cache_features.py'
        content = read_json(self.folder / 'meta.json', 'feature cache',
                            advice=advice)
        content['grid'] = tuple(content['grid'])
        self.meta = CacheMeta(**content)
        mode = 'r+' if write else 'r'
        try:
            self.features = np.load(
                existing(self.folder / 'features.npy', 'Cache file', advice),
                mmap_mode=mode)
            self.state = np.load(
                existing(self.folder / 'state.npy', 'Cache file', advice),
                mmap_mode=mode)
        except ValueError as error:
            raise ValueError(f'{self.folder} is damaged ({error}): delete it '
                             'and make it again.') from error

    @classmethod
    def create(cls, folder: Union[str, Path], meta: CacheMeta,
               images: int) -> 'FeatureCache':
        """Lay the files out, with their whole size taken from the disk.

        Raises:
            OSError: If the disk has no room; with how much is needed.
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
        if hasattr(os, 'posix_fallocate'):  # else a full disk kills the run
            with open(folder / 'features.npy', 'r+b') as file:
                os.posix_fallocate(file.fileno(), 0, features.offset + need)
        np.save(folder / 'state.npy', np.zeros(shape[:2], np.uint8))
        # Last: a cache with this file is whole, if not yet filled.
        (folder / 'meta.json').write_text(json.dumps(meta._asdict()))
        return cls(folder, write=True)

    def check(self, meta: CacheMeta) -> None:
        """Refuse to serve another setting.

        Raises:
            ValueError: Naming what differs.
        """
        what = dict(
            tower='another frozen tower (weights, architecture or size)',
            pipeline='another pipeline',
            files='other images (their list, or a file\'s size, changed)',
            views='another number of views',
            grid='another input size',
            dim='another joint width',
            dtype='another precision')
        for name, own in meta._asdict().items():
            if getattr(self.meta, name) != own:
                raise ValueError(
                    f'The features in {self.folder} are of {what[name]}: make '
                    'them again in another folder with '
                    'tools/cache_features.py.')

    def check_complete(self) -> None:
        """Raise ValueError while views are missing."""
        missing = int((np.asarray(self.state) == TODO).sum())
        if missing:
            raise ValueError(
                f'{self.folder} lacks {missing} of {self.state.size} views: '
                'run tools/cache_features.py again, it goes on where it '
                'stopped.')


@TRANSFORMS.register_module()
class LoadCachedFeatures(BaseTransform):
    """Take an image's features from a cache instead of the image.

    With several views one is drawn at random.

    Required key: ``sample_idx``, the image's place in the data set. Added key:
    ``features``, ``(1 + L, D)`` tensor.

    Args:
        cache: Folder of a :class:`FeatureCache`.

    Raises:
        UnreadableImage: If the image could not be decoded for the cache.
    """

    def __init__(self, cache: str):
        self.folder = cache
        self.cache = None  # opened by every worker for itself

    def transform(self, results: dict) -> dict:
        if self.cache is None:
            self.cache = FeatureCache(self.folder)
        row = results['sample_idx']
        view = np.random.randint(self.cache.meta.views)
        if self.cache.state[row, view] != DONE:
            raise UnreadableImage(
                f'Image {results["img_path"]} could not be decoded when '
                f'{self.folder} was made; repair it and make the cache again, '
                "or train with unreadable='skip' on its data set.")
        results['features'] = torch.from_numpy(
            np.array(self.cache.features[row, view]))
        return results
