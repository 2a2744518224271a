"""Readers against damaged files: python tests/fuzz.py [CASES] [SEED]

Every case damages one file of a valid set and reads it. The outcome is a
result, or one of the package's own errors: a ValueError or FileNotFoundError
whose message is one of its sentences.
"""
import gc
import json
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
import trees

from trm_ml_mm.annotation import FORMATS, apply_answers
from trm_ml_mm.datasets import (
    VG200,
    CocoMultiLabel,
    CSVMultiLabel,
    CUBAttributes,
    JSONMultiLabel,
    NUSWide,
    VOCMultiLabel,
    label_matrix,
)
from trm_ml_mm.datasets.shards import (
    ImageList,
    ShardBackend,
    ShardFolder,
    write_shards,
)
from trm_ml_mm.engine import read_checkpoint
from trm_ml_mm.evaluation.run_record import FORMAT, read_record
from trm_ml_mm.features.storage import (
    NO_FILE,
    CacheMeta,
    FeatureCache,
    ImageFile,
)
from trm_ml_mm.labels import (
    UNKNOWN,
    LabelTable,
    class_names,
    load_mask,
    save_mask,
)
from trm_ml_mm.labels.mask_files import load_labels
from trm_ml_mm.labels.protocols import listed_positives_mask
from trm_ml_mm.models.towers.torchscript import read_torchscript

TOKENS = [
    b'', b'\x00', b'\xff\xfe', b'\r\n', b',', b';', b'"', b'-1', b'2', b'NaN',
    b'null', b'[]', b'{}', b'1e400', b'9' * 30, b'[' * 3000, b'{"a":' * 3000,
    b'<', b'<!DOCTYPE a [<!ENTITY b "c">]>', b'&b;', b'../../etc/passwd',
    b'/etc/passwd', b'=1+1', b'\xed\xa0\x80', 'é'.encode(), b'true', b'"x"',
    b'images', b'1.5', b'\x1b[2J',
]


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to three random changes."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        to = min(len(content), at + rng.choice([1, 1, 4, 40]))
        kind = rng.randrange(6)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[:at] + content[to:]
        elif kind == 2:
            content = content[:at] + rng.choice(TOKENS) + content[to:]
        elif kind == 3:
            content = content[:at] + content[at:to] * 2 + content[to:]
        elif kind == 4:
            content = content[:at] + bytes(
                b ^ (1 << rng.randrange(8)) for b in content[at:to]
            ) + content[to:]
        else:  # one value of a text for another
            words = list(re.finditer(rb'[\w.]+', content))
            if words:
                word = rng.choice(words)
                other = rng.choice([*TOKENS, rng.choice(words).group()])
                content = (content[:word.start()] + other
                           + content[word.end():])
    return content


def use(dataset):
    """What a training does with a data set first."""
    return label_matrix(dataset)


def csv_columns(root):
    (root / 'a.csv').write_text(
        'image,dog,red car\na.jpg,1,\nb.jpg,,0\nc.jpg,1.0,0.0\n')
    for name in 'abc':
        (root / f'{name}.jpg').touch()
    return ['a.csv'], lambda: use(CSVMultiLabel('a.csv', str(root)))


def csv_lists(root):
    (root / 'a.csv').write_text(
        'image,positive,negative\na.jpg,dog;cat,\n"b.jpg",car,dog\n')
    (root / 'names.txt').write_text('dog\ncat\ncar\n')
    for name in 'ab':
        (root / f'{name}.jpg').touch()
    return ['a.csv', 'names.txt'], lambda: use(CSVMultiLabel(
        'a.csv', str(root), classes=str(root / 'names.txt')))


def json_labels(root):
    (root / 'a.json').write_text(json.dumps(dict(
        metainfo=dict(classes=['dog', 'cat', 'car']),
        data_list=[dict(img_path='a.jpg', gt_label=[0, 2]),
                   dict(img_path='b.jpg', gt_score=[1, -1, 0])])))
    for name in 'ab':
        (root / f'{name}.jpg').touch()
    return ['a.json'], lambda: use(JSONMultiLabel(
        ann_file='a.json', data_root=str(root)))


def coco(root):
    (root / 'images').mkdir()
    (root / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='a.jpg'), dict(id=2, file_name='b.jpg')],
        categories=[dict(id=1, name='person'), dict(id=18, name='dog')],
        annotations=[dict(image_id=1, category_id=18),
                     dict(image_id=1, category_id=1)])))
    return ['a.json'], lambda: use(CocoMultiLabel(
        'a.json', 'images', str(root)))


def voc(root):
    trees.voc(root)
    files = [str(p.relative_to(root)) for p in root.rglob('*.xml')]
    return ['ImageSets/Main/trainval.txt', *files], lambda: use(VOCMultiLabel(
        'ImageSets/Main/trainval.txt', str(root)))


def mask(root):
    save_mask(root / 'a.npz', np.random.rand(40, 7) < .5, .5, 3)
    return ['a.npz'], lambda: load_mask(root / 'a.npz')


def mask_matrix(root):
    np.save(root / 'a.npy', np.random.rand(40, 7) < .5)
    return ['a.npy'], lambda: load_mask(root / 'a.npy')


def labels(root):
    np.savez(root / 'a.npz', labels=np.random.randint(-1, 2, (20, 5)))
    np.save(root / 'b.npy', np.random.randint(-1, 2, (20, 5)))
    return ['a.npz', 'b.npy'], lambda: (load_labels(root / 'a.npz'),
                                        load_labels(root / 'b.npy'))


def positives(root):
    (root / 'a.txt').write_text('a.jpg,0\nb.jpg,1,2\nc.jpg,dog\n')
    truth = np.ones((3, 3))
    return ['a.txt'], lambda: listed_positives_mask(
        root / 'a.txt', truth, ['x/a.jpg', 'x/b.jpg', 'x/c.jpg'],
        ['cat', 'dog', 'car'])


def names(root):
    (root / 'a.txt').write_text('dog\ncat\nred car\n')
    return ['a.txt'], lambda: class_names(str(root / 'a.txt'))


def checkpoint(root):
    torch.save(dict(state_dict=dict(a=torch.rand(3)), meta=dict(epoch=1)),
               root / 'a.pth')
    return ['a.pth'], lambda: read_checkpoint(root / 'a.pth')


def archive(root):
    torch.jit.script(torch.nn.Linear(2, 3)).save(root / 'a.pt')
    return ['a.pt'], lambda: read_torchscript(root / 'a.pt')


def cache(root):
    meta = CacheMeta('t', {}, [], 1, (2, 2), 4, 'float32')
    files = [ImageFile(name, name, NO_FILE, 0) for name in 'abc']
    FeatureCache.create(root, meta).update(files)
    return ['meta.json', 'images.json', 'part_0/state.npy',
            'part_0/features.npy'], lambda: FeatureCache(root)


def shards(root):
    images = ImageList([str(root / name) for name in 'abcd'], [str(root)] * 4)
    for number, path in enumerate(images.paths):
        Path(path).write_bytes(bytes([number]) * 700)
    write_shards(images, root / 's', 4000)
    files = [f's/{name}' for name in (
        'index.npy', 'shard-000000.tar', 'shard-000000.npy')]

    def read():
        shutil.rmtree(root / 'more', ignore_errors=True)
        shutil.copytree(root / 's', root / 'more')
        write_shards(images, root / 'more', 4000)  # looks at what is there
        folder = ShardFolder(root / 's')
        for name in 'abcd':
            content = folder.read(name)
            if content is None:
                raise_missing(root / name)
            assert content == Path(root / name).read_bytes()

    return files, read


def raise_missing(path):
    """As the data set does, by the package's own words."""
    ShardBackend(path.parent / 's', str(path.parent)).get(path)


def record(root):
    (root / 'test_results.json').write_text(json.dumps(dict(
        format=FORMAT, head='h', config='c', seed=0, known_labels=None,
        versions={}, code='x', validation={}, rows=[])))
    return ['test_results.json'], lambda: read_record(root)


def vg(root):
    trees.vg200(root)
    files = [p.name for p in root.iterdir() if p.is_file()]
    return files, lambda: use(VG200('train_list_500.txt', str(root)))


def nus(root):
    trees.nuswide(root)
    files = [str(p.relative_to(root)) for p in root.rglob('*.txt')]
    return files, lambda: use(NUSWide(data_root=str(root)))


def cub(root):
    trees.cub(root)
    files = [str(p.relative_to(root)) for p in root.rglob('*.txt')]
    return files, lambda: use(CUBAttributes(data_root=str(root)))


def answers(tool, file, root, archive=False):
    """An export of an annotation tool, with one answer."""
    table = LabelTable(['a.jpg', 'b.jpg'], ['dog', 'red car'],
                       np.array([[1, UNKNOWN], [UNKNOWN, 0]], np.int8))
    path, _ = FORMATS[tool].export(table, root / file)
    if tool == 'labelstudio':
        tasks = json.loads(path.read_text())
        for task in tasks:
            task['annotations'] = task['predictions']
        path.write_text(json.dumps(tasks))
    if archive:
        with zipfile.ZipFile(root / 'a.zip', 'w') as archive:
            archive.write(path, 'annotations.xml')
        path = root / 'a.zip'
    return [path.name], lambda: apply_answers(
        table, FORMATS[tool].read_answers(path, table))


READERS = dict(
    csv_columns=csv_columns, csv_lists=csv_lists, json=json_labels, coco=coco,
    voc=voc, vg=vg, nus=nus, cub=cub, mask=mask, mask_matrix=mask_matrix,
    labels=labels, positives=positives, names=names, checkpoint=checkpoint,
    archive=archive, cache=cache, shards=shards, record=record,
    label_studio=partial(answers, 'labelstudio', 'a.json'),
    cvat=partial(answers, 'cvat', 'a.xml'),
    cvat_archive=partial(answers, 'cvat', 'a.xml', archive=True))


def is_own(error: Exception) -> bool:
    """A sentence of this package, raised by its own code."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, (ValueError, FileNotFoundError)) and (
        'trm_ml_mm' in frames[-1].filename)


def fuzz(name: str, cases: int, seed: int = 0):
    """(number of cases read, of own errors, {other error: an example})."""
    gc.freeze()  # MMEngine collects garbage for each data set it makes
    rng = random.Random(f'{name} {seed}')
    read = own = 0
    other = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files, reader = READERS[name](root)
        reader()  # the undamaged files can be read
        for _ in range(cases):
            path = root / rng.choice(files)
            content = path.read_bytes()
            path.write_bytes(damage(content, rng))
            start = time.monotonic()
            try:
                reader()
                read += 1
            except Exception as error:  # whatever it is, it is counted
                if is_own(error):
                    own += 1
                else:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    key = (f'{type(error).__name__} at '
                           f'{Path(where.filename).name}:{where.lineno}')
                    other.setdefault(key, str(error)[:200])
            if time.monotonic() - start > 5:
                other['slow'] = str(path)
            path.write_bytes(content)
    return read, own, other


def main():
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    total = Counter()
    for name in READERS:
        read, own, other = fuzz(name, cases, seed)
        print(f'{name}: {cases} cases, {read} read, {own} refused, '
              f'{cases - read - own} other errors', flush=True)
        for key, example in other.items():
            print(f'    {key}: {example}')
        total.update(other=cases - read - own)
    sys.exit(bool(total['other']))


if __name__ == '__main__':
    main()
