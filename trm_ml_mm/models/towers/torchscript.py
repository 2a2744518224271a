"""The tensors of a TorchScript archive, without running its program.

``torch.jit.load`` runs code of the archive while it loads: a method
``__setstate__`` may write files. OpenAI published CLIP as such archives. Here
only the tensors are read: an archive is a zip file with a pickle of the module
tree, ``data.pkl``, and one file for each storage, ``data/<key>``.
"""
import pickle
import zipfile
from pathlib import Path
from typing import Dict, Union

import torch
from torch import Tensor

_STORAGES = {
    'DoubleStorage': torch.float64, 'FloatStorage': torch.float32,
    'HalfStorage': torch.float16, 'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8,
    'ByteStorage': torch.uint8, 'BoolStorage': torch.bool,
}


def is_torchscript(path: Union[str, Path]) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith('/constants.pkl') for n in archive.namelist())


def read_torchscript(path: Union[str, Path]) -> Dict[str, Tensor]:
    """Every tensor of the module tree, by its dotted name.

    That is the state dict, and tensors that are plain attributes, if there are
    any.

    Raises:
        ValueError: If it is damaged, or its pickle asks for anything but
            modules, tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist()
                        if n.endswith('/data.pkl'))
            with archive.open(name) as file:
                root = _TreeUnpickler(file, archive,
                                      name.removesuffix('.pkl')).load()
        return dict(_tensors(root, ''))
    except Exception as error:  # a damaged archive can raise anything
        raise ValueError(
            f'{path} is not a TorchScript archive whose tensors can be read '
            f'safely ({type(error).__name__}: {error}); give a state dict.'
        ) from error


class _Module:
    """Stands for every module class of the archive: only attributes."""

    def __setstate__(self, state) -> None:
        if not isinstance(state, dict):
            raise ValueError('a module of it has its own way of loading')
        self.__dict__.update(state)


def _tensors(node, prefix: str):
    for name, value in vars(node).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f'{prefix}{name}.')


class _TreeUnpickler(pickle.Unpickler):
    """Knows modules, tensors and plain containers, and nothing else."""

    def __init__(self, file, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str):
        if module.split('.')[0] == '__torch__':
            return type('_Module', (_Module, ), {})
        if module == 'torch' and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _tensor
        if (module, name) == ('collections', 'OrderedDict'):
            return dict
        if module == 'torch.jit._pickle':  # typed lists
            return _plain
        raise ValueError(f'its pickle asks for {module}.{name}')

    def persistent_load(self, found: tuple) -> Tensor:
        _, dtype, key, _, count = found
        info = self.archive.getinfo(f'{self.folder}/{key}')
        if not count * dtype.itemsize == info.file_size == info.compress_size:
            raise ValueError(f'its storage {key} has {info.file_size} bytes '
                             f'for {count} values')
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self.archive.read(info)), dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple,
            *_) -> Tensor:
    """A view of its storage; raises if it would reach beyond."""
    return storage.as_strided(size, stride, offset)


def _plain(value, *_):
    return value
