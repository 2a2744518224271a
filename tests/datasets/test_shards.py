"""Images in shards: the same pixels, wherever they are read from; nothing that
a shard or an index says can make another image of it."""
import os
import pickle
import shutil
import subprocess
import tarfile
import zlib

import cv2
import numpy as np
import pytest
import trees
from filelock import FileLock
from mmengine.fileio import get as read_file
from mmengine.logging import MMLogger
from tests_support import ROOT, call_tool
from torch.utils.data import DataLoader

from trm_ml_mm.cli.make_shards import listed_images
from trm_ml_mm.datasets import ShardFolder, UnreadableImage
from trm_ml_mm.datasets.base import MissingImage
from trm_ml_mm.datasets.shards import ImageList, layout, write_shards
from trm_ml_mm.datasets.shards import folder as folder_module
from trm_ml_mm.datasets.shards.local_copies import LocalCopies
from trm_ml_mm.engine import build_dataset, load_config

NAMES = ['a.jpg', 'photos of you/ä ö.jpg', 'deep/' * 30 + 'x.png',
         'x' * 99 + '.jpg', *(f'{i}.jpg' for i in range(30))]


def files(root, names=NAMES, seed=0):
    """Random bytes as image files; an ImageList of them."""
    rng = np.random.RandomState(seed)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(rng.randint(1, 3000)))
    return ImageList([str(root / name) for name in names],
                     [str(root)] * len(names))


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes()
            for p in root.rglob('*') if p.is_file()}


@pytest.fixture
def made(tmp_path):
    """Folder of shards of about 5 kB, and the files they were made of."""
    write_shards(files(tmp_path / 'files'), tmp_path / 'shards', 5000)
    return tmp_path / 'shards', tmp_path / 'files'


def test_every_image_is_what_its_file_is(made):
    shards, source = made
    folder = ShardFolder(shards)
    assert len(folder) == len(NAMES)
    assert {n: folder.read(n) for n in NAMES} == contents(source)
    for name in ('b.jpg', '', '/a.jpg', '../files/a.jpg', 'photos of you'):
        assert folder.read(name) is None
    # Sizes: no shard is larger than asked for, and none much smaller.
    sizes = [p.stat().st_size for p in sorted(shards.glob('*.tar'))]
    assert len(sizes) > 5 and max(sizes) <= 5000 + 1024
    assert min(sizes[:-1]) > 1000
    assert (shards / 'index.npy').stat().st_size <= 28 * len(NAMES) + 256


def test_tar_unpacks_the_shards(made, tmp_path):
    shards, source = made
    (tmp_path / 'out').mkdir()
    for path in sorted(shards.glob('*.tar')):
        subprocess.run(['tar', '-xf', path, '-C', tmp_path / 'out'],
                       check=True)
        with tarfile.open(path) as archive:
            assert all(member.isreg() for member in archive)
    assert contents(tmp_path / 'out') == contents(source)


@pytest.mark.parametrize('size', [0, 1, 7777777, 2**31 - 1])
def test_headers_are_those_of_python(size):
    for name in [*NAMES, 'x' * 100, 'x' * 101, 'ä' * 50, 'a b', '\udcff.jpg']:
        info = tarfile.TarInfo(name)
        info.size = size
        assert layout.header(name, size) == info.tobuf(
            tarfile.GNU_FORMAT, 'utf-8', 'surrogateescape')


def test_new_images_go_into_new_shards(made, tmp_path):
    shards, source = made
    before = contents(shards)
    more = files(source, ['new.jpg', 'z/new.jpg'], 1)
    both = ImageList([*files(source).paths, *more.paths, more.paths[0]],
                     [str(source)] * (len(NAMES) + 3))  # one comes twice
    assert write_shards(both, shards, 5000) == (
        2, len(NAMES) + 2, len(list(shards.glob('*.tar'))), 0)
    after = contents(shards)
    assert all(after[name] == value for name, value in before.items()
               if name != 'index.npy')
    folder = ShardFolder(shards)
    assert {n: folder.read(n) for n in contents(source)} == contents(source)
    assert write_shards(both, shards, 5000).added == 0
    assert contents(shards) == after


def test_processes_and_threads_share_a_folder(made):
    shards, source = made
    folder = ShardFolder(shards)
    folder.read(NAMES[0])  # open, before there are workers
    expected = contents(source)
    copied = pickle.loads(pickle.dumps(folder))
    assert copied.read(NAMES[1]) == expected[NAMES[1]]
    names = NAMES * 5

    class Reading:
        def __len__(self):
            return len(names)

        def __getitem__(self, i):
            return folder.read(names[i])

    loader = DataLoader(Reading(), 7, num_workers=3, collate_fn=list,
                        multiprocessing_context='fork')
    assert sum(loader, []) == [expected[name] for name in names]


def test_few_files_stay_open(made, monkeypatch):
    monkeypatch.setattr(folder_module, 'OPEN_FILES', 3)
    shards, source = made
    folder, before = ShardFolder(shards), len(os.listdir('/proc/self/fd'))
    assert {n: folder.read(n) for n in NAMES} == contents(source)
    assert len(os.listdir('/proc/self/fd')) <= before + 3


def test_what_cannot_be_written_is_named(tmp_path):
    images = files(tmp_path / 'files', ['a.jpg', 'b.jpg', 'c.jpg'])
    (tmp_path / 'files/b.jpg').unlink()
    (tmp_path / 'files/c.jpg').write_bytes(b'')
    out = tmp_path / 'shards'
    with pytest.raises(UnreadableImage, match=r'b\.jpg cannot be read '
                       r'\(No such file or directory\): repair it'):
        write_shards(images, out)
    assert not list(out.glob('*.tar'))
    assert not list(out.glob('.*.part'))
    assert write_shards(images, out, skip_unreadable=True) == (1, 1, 1, 2)
    skipped = (out / 'skipped.txt').read_text().splitlines()
    assert [line.split('files/')[1] for line in skipped] == [
        'b.jpg: No such file or directory', 'c.jpg: it is empty']
    # Repaired later: the same command adds them, and nothing is skipped.
    files(tmp_path / 'files', ['b.jpg', 'c.jpg'])
    assert write_shards(images, out, skip_unreadable=True) == (2, 3, 2, 0)
    assert not (out / 'skipped.txt').exists()


def test_names_stay_in_their_folder_and_are_told_apart(tmp_path, monkeypatch):
    one, other = (files(tmp_path / name, ['a.jpg', 'b.jpg'])
                  for name in ('one', 'other'))
    for root, path in (('', str(tmp_path / 'one/a.jpg')),
                       (str(tmp_path / 'other'), str(tmp_path / 'one/a.jpg'))):
        with pytest.raises(ValueError, match='a.jpg lies outside of'):
            write_shards(ImageList([path], [root]), tmp_path / 'out')
    with pytest.raises(ValueError, match='one/a.jpg and .*other/a.jpg would '
                       'both be a.jpg: write a folder of shards for each'):
        write_shards(ImageList(one.paths + other.paths,
                               one.roots + other.roots), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    # Two names of the same hash: refused when written, ...
    monkeypatch.setattr('trm_ml_mm.datasets.shards.writing.name_hash',
                        lambda name: 7)
    with pytest.raises(ValueError, match='would both be b.jpg'):
        write_shards(one, tmp_path / 'out')
    write_shards(ImageList(one.paths[:1], one.roots[:1]), tmp_path / 'out')
    # ... and when read: the name in the tar file counts.
    monkeypatch.setattr(folder_module, 'name_hash', lambda name: 7)
    folder = ShardFolder(tmp_path / 'out')
    assert folder.read('a.jpg') == (tmp_path / 'one/a.jpg').read_bytes()
    with pytest.raises(UnreadableImage, match='something else stands there'):
        folder.read('b.jpg')


def test_only_one_process_writes(tmp_path):
    images = files(tmp_path / 'files', ['a.jpg'])
    (tmp_path / 'out').mkdir()
    with FileLock(tmp_path / 'out/.lock'):
        with pytest.raises(OSError, match='Another process is writing'):
            write_shards(images, tmp_path / 'out')


# Damage, and files of a stranger


def test_a_damaged_shard_names_itself_and_the_place(made):
    shards, _ = made
    place = ShardFolder(shards).find('5.jpg')
    path = layout.shard_path(shards, place.shard)
    whole = bytearray(path.read_bytes())
    head = len(layout.header('5.jpg', place.size))

    def read(content):
        path.write_bytes(content)
        return ShardFolder(shards).read('5.jpg')

    for at, why in ((head, 'its content has changed'),
                    (0, 'something else stands there')):
        content = bytearray(whole)
        content[place.offset + at] ^= 1
        with pytest.raises(UnreadableImage, match=(
                f'Image 5.jpg cannot be read at byte {place.offset} of '
                f'{path}: {why}. Copy this shard again')):
            read(content)
    cut = place.offset + head + place.size - 1
    with pytest.raises(UnreadableImage, match='the file is cut off'):
        read(whole[:cut])
    with pytest.raises(ValueError, match=f'{path} is cut off'):
        write_shards(ImageList([], []), shards)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f'{path} does not exist; copy'):
        ShardFolder(shards).read('5.jpg')
    with pytest.raises(ValueError, match=f'{path.name} is not whole'):
        write_shards(ImageList([], []), shards)


def test_an_index_of_a_stranger_reads_nothing_else(made, tmp_path):
    """Whatever it says, there is this image, a sentence, or nothing."""
    shards, source = made
    records = np.load(shards / 'index.npy')
    secret = tmp_path / 'secret'
    secret.write_bytes(b'password' * 1000)
    (shards / 'shard-000099.tar').symlink_to(secret)
    row = np.flatnonzero(records['hash'] == layout.name_hash('5.jpg'))[0]

    def read(**changes):
        changed = records.copy()
        for key, value in changes.items():
            changed[key][row] = value
        np.save(shards / 'index.npy', changed)
        return ShardFolder(shards).read('5.jpg')

    assert read() == (source / '5.jpg').read_bytes()
    for changes in (dict(shard=99, offset=0, size=100), dict(size=0),
                    dict(shard=99, offset=0, crc=zlib.crc32(b'password')),
                    dict(size=2**32 - 1), dict(offset=2**64 - 1),
                    dict(offset=2**63, size=2**32 - 1), dict(offset=1)):
        with pytest.raises(UnreadableImage, match='5.jpg cannot be read at'):
            read(**changes)
    with pytest.raises(FileNotFoundError, match='shard-4294967295.tar does'):
        read(shard=2**32 - 1)
    assert read(hash=0) is None  # no longer sorted


@pytest.mark.parametrize('content', [
    b'', b'x' * 100, np.zeros(3), np.zeros((2, 2), layout.RECORD),
    np.array([print], object), np.zeros(2, '<u8,<u8')])
def test_other_files_are_no_index(made, content):
    shards, _ = made
    if isinstance(content, bytes):
        (shards / 'index.npy').write_bytes(content)
    else:
        np.save(shards / 'index.npy', content, allow_pickle=True)
    with pytest.raises(ValueError, match='index.npy is (damaged|no index of)'):
        ShardFolder(shards)
    (shards / 'index.npy').unlink()
    with pytest.raises(FileNotFoundError, match='index.npy does not exist; '
                       'make it with tools/make_shards.py; if that was'):
        ShardFolder(shards)


# Local copies


def test_copies_take_the_place_of_shards(made, tmp_path):
    shards, source = made
    copies = LocalCopies(tmp_path / 'local')
    folder = ShardFolder(shards, copies)
    assert {n: folder.read(n) for n in NAMES} == contents(source)
    found = sorted((tmp_path / 'local').glob('shards-*/*.tar'))
    assert [p.name for p in found] == [
        p.name for p in sorted(shards.glob('*.tar'))]
    for path in found:
        assert path.read_bytes() == (shards / path.name).read_bytes()
    # They are what is read.
    again = ShardFolder(shards, LocalCopies(tmp_path / 'local'))
    found[again.find('a.jpg').shard].write_bytes(b'')
    os.utime(found[0], ns=(0, (shards / found[0].name).stat().st_mtime_ns))
    assert again.read('a.jpg') == (source / 'a.jpg').read_bytes()  # copied anew
    assert found[0].stat().st_size


def test_a_full_folder_of_copies_is_said_once(made, tmp_path, capfd):
    shards, source = made
    MMLogger.get_instance(f'copies {tmp_path}')
    left = tmp_path / 'local/shards-0/.shard-000000.tar.1.part'
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(10**6))  # of a killed process
    folder = ShardFolder(shards, LocalCopies(tmp_path / 'local', .000012))
    assert {n: folder.read(n) for n in NAMES} == contents(source)
    copies = list((tmp_path / 'local').rglob('*.tar'))
    assert 1 <= len(copies) <= 3 and not left.exists()
    shown = ''.join(capfd.readouterr())
    MMLogger._instance_dict.clear()
    assert shown.count('no room for more copies of shards (cache_gb=1.2e-05)'
                       ) == 1
    with pytest.raises(ValueError, match='cache_gb must be a positive'):
        LocalCopies(tmp_path, 0)


def test_nobody_waits_for_a_copy(made, tmp_path):
    shards, source = made
    folder = ShardFolder(shards, LocalCopies(tmp_path / 'local'))
    (tmp_path / 'local').mkdir()
    with FileLock(tmp_path / 'local/.lock'):
        assert folder.read('a.jpg') == (source / 'a.jpg').read_bytes()
    assert not list((tmp_path / 'local').rglob('*.tar'))
    assert folder.read('a.jpg') == (source / 'a.jpg').read_bytes()
    assert len(list((tmp_path / 'local').rglob('*.tar'))) == 1


# In a config


SETS = dict(coco=trees.coco, voc2007=trees.voc, vg200=trees.vg200,
            nuswide=trees.nuswide, cub=trees.cub, csv=trees.csv,
            openimages=trees.open_images, lvis=trees.lvis, vaw=trees.vaw,
            chexpert=trees.chexpert)


@pytest.mark.parametrize('name', SETS)
def test_data_sets_need_no_image_files(name, tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    SETS[name](root)
    options = {'data_root': f'{root}/'}
    config = str(ROOT / f'configs/trm_ml_{name}.py')
    cfg = load_config(config, options)
    before = [sample['inputs'] for sample in build_dataset(cfg, 'test')]
    write_shards(listed_images(cfg), tmp_path / 'shards')
    for path in root.rglob('*.jpg'):
        path.unlink()
    cfg = load_config(config, {**options, 'shards': str(tmp_path / 'shards')})
    assert listed_images(cfg).paths
    after = [sample['inputs'] for sample in build_dataset(cfg, 'test')]
    assert len(before) == len(after) > 0
    assert all((a == b).all() for a, b in zip(before, after))
    build_dataset(cfg, 'train')[0]


@pytest.fixture
def photos(tmp_path):
    """A function that returns the config of three photos in shards."""
    trees.csv(tmp_path / 'data')
    options = {'data_root': f'{tmp_path / "data"}/'}
    config = str(ROOT / 'configs/trm_ml_csv.py')
    write_shards(listed_images(load_config(config, options)),
                 tmp_path / 'shards', 4000)
    return lambda **more: load_config(config, {
        **options, 'shards': str(tmp_path / 'shards'), **more})


SKIP = {'train_dataloader.dataset.dataset.on_error': 'skip'}


def test_a_missing_image_stops_or_is_skipped(tmp_path, photos):
    (tmp_path / 'data/train.csv').write_text(
        'image,dog,hot dog,red car\nx.jpg,1,0,\nb.jpg,0,1,1\n')
    with pytest.raises(FileNotFoundError, match=r'train.csv line 2: image '
                       r'.*x.jpg does not exist'):
        build_dataset(photos())
    data = build_dataset(photos(**SKIP))
    assert data[0]['data_samples'].skipped_images == [
        str(tmp_path / 'data/images/x.jpg')]
    data.dataset.on_error = 'raise'
    with pytest.raises(MissingImage, match=r'images/x.jpg is not in the shards '
                       r'.*shards, under the name images/x.jpg'):
        data[0]


@pytest.mark.parametrize('damage', ['content', 'picture'])
def test_an_unreadable_image_stops_or_is_skipped(tmp_path, photos, damage):
    shards = tmp_path / 'shards'
    if damage == 'content':
        path = shards / 'shard-000001.tar'
        content = bytearray(path.read_bytes())
        content[600] ^= 1
        path.write_bytes(content)
        message = 'b.jpg cannot be read at byte 0 of .*shard-000001.tar'
    else:
        shutil.rmtree(shards)
        (tmp_path / 'data/images/b.jpg').write_bytes(b'no picture')
        write_shards(listed_images(load_config(
            str(ROOT / 'configs/trm_ml_csv.py'),
            {'data_root': f'{tmp_path / "data"}/'})), shards, 4000)
        message = r'b.jpg \(at byte 0 of .*shard-000001.tar\) cannot be decoded'
    with pytest.raises(UnreadableImage, match=message):
        build_dataset(photos())[1]
    sample = build_dataset(photos(**SKIP))[1]['data_samples']
    assert sample.img_path.endswith('c.jpg')
    assert sample.skipped_images[0].endswith('b.jpg')


def test_a_missing_shard_stops_the_training(tmp_path, photos):
    """It is not one image that is missing, but thousands."""
    (tmp_path / 'shards/shard-000001.tar').unlink()
    with pytest.raises(FileNotFoundError, match='shard-000001.tar does not'):
        build_dataset(photos(**SKIP))[1]


def test_options_of_a_config(tmp_path, photos):
    cfg = photos(**{'train_dataloader.dataset.dataset.data_root':
                    str(tmp_path / 'elsewhere')})
    backend = dict(backend='trm_ml_mm.shards', folder=str(tmp_path / 'shards'))
    assert cfg.train_dataloader.dataset.dataset.pipeline[0].backend_args == (
        dict(backend, root=str(tmp_path / 'elsewhere')))
    val = cfg.val_dataloader.dataset.pipeline[0].backend_args
    assert val == dict(backend, root=str(tmp_path / 'data') + '/')
    again = load_config(cfg, {'shards': str(tmp_path / 'shards')})
    assert again.val_dataloader == cfg.val_dataloader
    assert read_file(str(tmp_path / 'data/images/a.jpg'), val) == (
        tmp_path / 'data/images/a.jpg').read_bytes()
    # In parts, with local copies.
    cfg = load_config(str(ROOT / 'configs/trm_ml_csv.py'), {
        'data_root': str(tmp_path / 'data'), 'shards.cache_gb': 1,
        'shards.folder': str(tmp_path / 'shards'),
        'shards.cache': str(tmp_path / 'local')})
    build_dataset(cfg)[0]
    assert len(list((tmp_path / 'local').rglob('*.tar'))) == 1
    for wrong, message in [
            (dict(cache='x'), 'shards is a folder, or dict'),
            (3, 'shards is a folder'),
            (dict(folder='x', size=3), 'is a folder'),
            (dict(folder='x', cache_gb=-1), 'cache_gb must be a positive')]:
        with pytest.raises(ValueError, match=message):
            photos(shards=wrong)
    with pytest.raises(ValueError, match='no data set of this config loads'):
        load_config(str(ROOT / 'configs/trm_ml_scenes.py'), {'shards': 'x'})


# The tool


@pytest.fixture
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_tool_writes_and_verifies(tmp_path, _here):
    trees.csv(tmp_path / 'data')
    options = ['--cfg-options', f'data_root={tmp_path / "data"}/']
    arguments = ['configs/trm_ml_csv.py', '--out', tmp_path / 'out',
                 '--shard-size', '.004', '--verify', *options]
    done = call_tool('tools/make_shards.py', arguments)
    assert done.status == 0, done.err
    assert '3 images in 3 shards; 3 are new' in done.out
    assert 'Every image can be read and decoded.' in done.out
    assert f'shards={tmp_path / "out"}' in done.out.splitlines()[-1]
    # A folder gives the same names, and so the same shards.
    call_tool('tools/make_shards.py', [
        tmp_path / 'data', '--out', tmp_path / 'again', '--shard-size', '.004'])
    assert contents(tmp_path / 'again') == contents(tmp_path / 'out')
    (tmp_path / 'data/images/d.jpg').write_bytes(b'no picture')
    done = call_tool('tools/make_shards.py', [
        tmp_path / 'data', '--out', tmp_path / 'out', '--verify'])
    assert done.status == 1 and '4 images in 4 shards; 1 are new' in done.out
    assert 'Image images/d.jpg, at byte 0 of' in done.out
    (tmp_path / 'data/images/e.jpg').write_bytes(b'')
    for extra, status, text in (
            ([], 2, 'e.jpg cannot be read (it is empty)'),
            (['--skip-unreadable'], 1, '1 cannot be read, see skipped.txt')):
        done = call_tool('tools/make_shards.py', [
            tmp_path / 'data', '--out', tmp_path / 'out', *extra])
        assert done.status == status and text in done.out + done.err
    for words, text in (([tmp_path / 'data'], 'give --out FOLDER'), (
            ['configs/trm_ml_scenes.py', '--out', tmp_path / 'x',
             '--cfg-options', *(f'{split}_dataloader.dataset.num_images=8'
                                for split in ('val', 'test')),
             'train_dataloader.dataset.dataset.num_images=8'],
            'loads image files: there is nothing to write'), (
            [tmp_path / 'data', '--out', 'x', '--shard-size', '0'],
            'shard_size must be a positive')):
        done = call_tool('tools/make_shards.py', words)
        assert done.status == 2 and text in done.err


def test_data_in_shards_can_be_inspected(tmp_path, photos, _here):
    for path in (tmp_path / 'data/images').iterdir():
        path.unlink()
    arguments = ['configs/trm_ml_csv.py', '--out', tmp_path, '--cfg-options',
                 f'data_root={tmp_path / "data"}/',
                 f'shards={tmp_path / "shards"}']
    done = call_tool('tools/inspect_data.py', arguments)
    assert done.out.count('unreadable files') == 2
    assert '1 images of val are in train too' in ' '.join(done.out.split())
    assert cv2.imread(str(tmp_path / 'samples_train.png')) is not None
    path = tmp_path / 'shards/shard-000001.tar'
    path.write_bytes(path.read_bytes()[:700])
    done = call_tool('tools/inspect_data.py', arguments)
    assert '1 of 3 images cannot be used' in done.out
    assert 'shard-000001.tar: the file is cut off' in ' '.join(
        done.out.split())
