"""Images of every kind, as training sees them."""
import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from trm_ml_mm.datasets import UnreadableImage
from trm_ml_mm.datasets.base import MissingImage
from trm_ml_mm.datasets.images import find_images, name_of, read_image

COLOURS = dict(red=(220, 30, 20), green=(10, 200, 40), blue=(20, 40, 230))


@pytest.fixture
def picture():
    """Two colours, 12 px wide and 8 px high, in RGB."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6], pixels[:, 6:] = COLOURS['red'], COLOURS['blue']
    return pixels


def close(image, rgb, tolerance=12):
    return image.dtype == np.uint8 and image.shape == rgb.shape and (
        np.abs(image[..., ::-1].astype(int) - rgb).max() <= tolerance)


def test_a_rotated_photo_stands_upright(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    path = tmp_path / 'a.jpg'
    Image.fromarray(picture).save(path, exif=exif, quality=100, subsampling=0)
    upright = np.rot90(picture, -1)
    assert close(read_image(str(path)), upright)
    with Image.open(path) as image:
        assert close(read_image(image), upright)


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGBA', 'P', '1', 'LA'])
def test_every_mode_becomes_three_channels(picture, tmp_path, mode):
    image = Image.fromarray(picture).convert(mode)
    suffix = 'jpg' if mode in ('L', 'CMYK') else 'png'
    options = dict(quality=100, subsampling=0) if suffix == 'jpg' else {}
    path = tmp_path / f'a.{suffix}'
    image.save(path, **options)
    expected = np.asarray(image.convert('RGB'))
    tolerance = 40 if mode == 'CMYK' else 12  # libraries differ in profiles
    assert close(read_image(str(path)), expected, tolerance)
    assert close(read_image(image), expected)


def test_sixteen_bits_become_eight(tmp_path):
    values = np.linspace(0, 65535, 96).reshape(8, 12).astype(np.uint16)
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, values)
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    assert np.abs(read_image(path).astype(int) - expected).max() <= 1
    with Image.open(path) as image:
        assert (read_image(image) == expected).all()
    assert (read_image(values) == expected).all()


@pytest.mark.parametrize('suffix', ['gif', 'webp', 'png'])
def test_of_an_animation_the_first_frame_counts(picture, tmp_path, suffix):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    path = tmp_path / f'a.{suffix}'
    options = dict(lossless=True) if suffix == 'webp' else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert close(read_image(str(path)), picture)


def test_a_file_is_read_as_in_training(picture, tmp_path):
    path = str(tmp_path / 'a.jpg')
    Image.fromarray(picture).save(path, quality=60)
    loaded = LoadImageFromFile()(dict(img_path=path))['img']
    assert (read_image(path) == loaded).all()


def test_arrays_are_in_bgr(picture):
    assert (read_image(picture) == picture).all()
    assert (read_image(picture[..., 0])[..., 2] == picture[..., 0]).all()
    assert read_image(np.zeros((3, 4, 4), np.uint8)).shape == (3, 4, 3)


@pytest.mark.parametrize('array', [
    np.zeros((4, 4, 3)), np.zeros((4, 4, 5), np.uint8),
    np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match='is no image'):
        read_image(array)


@pytest.mark.parametrize('content', [b'', b'no image', b'\xff\xd8\xff\xe0'])
def test_what_cannot_be_decoded_is_named(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=str(path)):
        read_image(str(path))
    with pytest.raises(MissingImage, match='b.jpg'):
        read_image(str(tmp_path / 'b.jpg'))


def test_images_are_found_in_order(tmp_path, picture):
    for name in ('b.jpg', 'a.PNG', 'sub/c.webp', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')
    there = [str(tmp_path / n) for n in ('a.PNG', 'b.jpg', 'sub/c.webp')]
    assert find_images(str(tmp_path)) == there
    assert find_images(tmp_path / 'b.jpg') == there[1:2]
    assert find_images(f'{tmp_path}/*.*[gG]') == there[:2]
    assert find_images(f'{tmp_path}/**/*.webp') == there[2:]
    found = find_images([there[2], picture, tmp_path])
    assert found[0] == there[2] and found[1] is picture
    assert found[2:] == there
    assert name_of(picture, 3) == 'image 3'


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'odd[1].jpg').write_bytes(b'x')
    for inputs, match in (('empty', 'has no image'), ('*.png', 'No file'),
                          ('none.jpg', 'does not exist')):
        with pytest.raises(FileNotFoundError, match=match):
            find_images(str(tmp_path / inputs))
    with pytest.raises(ValueError, match='int is no image'):
        find_images(3)
    # A file whose name looks like a pattern.
    assert len(find_images(str(tmp_path / 'odd[1].jpg'))) == 1
