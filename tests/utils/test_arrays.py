"""NumPy's files: no pickle, no more memory than they can need."""
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from trm_ml_mm.labels import load_mask
from trm_ml_mm.labels.mask_files import load_labels
from trm_ml_mm.utils.arrays import read_arrays


def header(shape, dtype='<i8'):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, dict(descr=dtype, fortran_order=False, shape=shape))
    return file.getvalue()


def test_arrays_come_back(tmp_path):
    a, b = np.random.rand(3, 4), np.arange(5)
    np.savez_compressed(tmp_path / 'x.npz', a=a, b=b, c='word')
    np.save(tmp_path / 'x.npy', a)
    found = read_arrays(tmp_path / 'x.npz')
    assert (found['a'] == a).all() and (found['b'] == b).all()
    assert str(found['c']) == 'word'
    assert (read_arrays(tmp_path / 'x.npy')[''] == a).all()


@pytest.mark.parametrize('kind', ['npz', 'npy', 'entry'])
@pytest.mark.parametrize('read', [read_arrays, load_mask, load_labels])
def test_a_small_file_cannot_take_all_memory(tmp_path, kind, read):
    path = tmp_path / ('x.npy' if kind == 'npy' else 'x.npz')
    if kind == 'npy':  # the header alone
        path.write_bytes(header((10**6, 10**6)))
    else:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            with archive.open('labels.npy', 'w', force_zip64=True) as file:
                if kind == 'entry':  # a lie
                    file.write(header((10**6, 10**6)))
                else:  # 4.3 GB of zeros in 4.2 MB
                    file.write(header((2**32 + 2**20, ), '|i1'))
                    for _ in range(2**12 + 1):
                        file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ValueError, match='GB|bytes'):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_objects_are_refused(tmp_path):
    np.save(tmp_path / 'x.npy', np.array([dict(a=1)], object))
    with pytest.raises(ValueError, match='objects'):
        read_arrays(tmp_path / 'x.npy')


@pytest.mark.parametrize('value', [255, .9, float('nan'), 2])
def test_only_labels_are_labels(tmp_path, value):
    labels = np.zeros((3, 4))
    labels[1, 2] = value
    np.save(tmp_path / 'x.npy', labels)
    with pytest.raises(ValueError, match='row 1, column 2'):
        load_labels(tmp_path / 'x.npy')


@pytest.mark.parametrize('value', [.5, float('nan'), -1])
def test_a_mask_is_known_or_hidden(tmp_path, value):
    mask = np.ones((3, 4))
    mask[1, 2] = value
    np.save(tmp_path / 'x.npy', mask)
    with pytest.raises(ValueError, match='1 .known. or 0'):
        load_mask(tmp_path / 'x.npy')
