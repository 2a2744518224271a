"""Odd images behave as docs/reliability.md says."""
import cv2
import numpy as np
import pytest
from PIL import Image

from trm_ml_mm.datasets import CSVMultiLabel
from trm_ml_mm.datasets.base import UnreadableImage
from trm_ml_mm.datasets.inspection import image_problem

Y, X = np.mgrid[:40, :60]
RGB = np.stack([X * 4, Y * 6, (X + Y) * 2], -1).astype(np.uint8)
GREY = np.asarray(Image.fromarray(RGB).convert('L'))
WHOLE = Image.fromarray(RGB)


def save(convert=None, **options):
    """Pillow's image of the scene in another mode."""
    def write(path):
        image = WHOLE.convert(convert) if convert else WHOLE
        image.save(path, **options)
    return write


def with_alpha(path):
    image = WHOLE.convert('RGBA')
    image.putalpha(Image.fromarray((X * 4).astype(np.uint8)))
    image.save(path)


def rotated(path):
    exif = WHOLE.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    WHOLE.save(path, exif=exif, quality=95)


def sixteen(values):
    return lambda path: cv2.imwrite(str(path), values)


def cut(path):
    WHOLE.save(path)
    path.write_bytes(path.read_bytes()[:800])


GREY_RGB = np.repeat(GREY[..., None], 3, -1)
FIRST = dict(save_all=True, append_images=[WHOLE.rotate(180)])
# name, how it is written, the RGB image that training gets, tolerance
GOOD = [
    ('rgb.png', save(), RGB, 0),
    ('rgb.jpg', save(quality=95), RGB, 12),
    ('progressive.jpg', save(quality=95, progressive=True), RGB, 12),
    ('rgb.bmp', save(), RGB, 0),
    ('rgb.tiff', save(), RGB, 0),
    ('grey.png', save('L'), GREY_RGB, 0),
    ('cmyk.jpg', save('CMYK', quality=95), RGB, 16),
    ('bilevel.png', save('1'),
     np.repeat(np.asarray(WHOLE.convert('1'), np.uint8)[..., None] * 255, 3,
               -1), 0),
    ('palette.png', save('P'), RGB, 90),
    ('grey_alpha.png', save('LA'), GREY_RGB, 0),
    ('rgba.png', with_alpha, RGB, 0),
    ('grey16.png', sixteen(GREY.astype(np.uint16) * 257), GREY_RGB, 1),
    ('rgb16.png', sixteen(RGB[..., ::-1].astype(np.uint16) * 257), RGB, 1),
    ('animated.gif', save(**FIRST), RGB, 90),
    ('animated.webp', save(lossless=True, **FIRST), RGB, 2),
    ('rotated.jpg', rotated, np.rot90(RGB, -1), 12),
    ('one.png', lambda path: WHOLE.resize((1, 1)).save(path),
     np.asarray(WHOLE.resize((1, 1))), 0),
    ('thin.png', lambda path: WHOLE.resize((1, 3000)).save(path),
     np.asarray(WHOLE.resize((1, 3000))), 0),
]
BAD = [
    ('cut.jpg', cut),
    ('empty.jpg', lambda path: path.touch()),
    ('text.jpg', lambda path: path.write_text('no image')),
    ('float.tiff', sixteen(RGB.astype(np.float32))),
]


OPENCV = tuple(map(int, cv2.__version__.split('.')[:2]))


def dataset(path):
    (path.parent / 'a.csv').write_text(f'image,dog\n{path.name},1\n')
    return CSVMultiLabel('a.csv', str(path.parent), pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='PackInputs')])


@pytest.mark.parametrize('name, write, expected, tolerance', GOOD,
                         ids=[case[0] for case in GOOD])
def test_training_reads(tmp_path, name, write, expected, tolerance):
    path = tmp_path / name
    write(path)
    if name.endswith('gif') and OPENCV < (4, 12):
        with pytest.raises(UnreadableImage):
            dataset(path)[0]
        return
    image = dataset(path)[0]['inputs'].numpy()[::-1].transpose(1, 2, 0)
    assert image.shape == expected.shape and image.dtype == np.uint8
    gap = np.abs(image.astype(int) - expected)
    assert gap.max() <= tolerance
    assert gap.mean() <= tolerance / 4
    assert image_problem(str(path)) is None


@pytest.mark.parametrize('name, write', BAD, ids=[case[0] for case in BAD])
def test_training_and_inspection_refuse(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    if name == 'float.tiff' and OPENCV < (4, 14):
        pytest.skip('this OpenCV makes some 8-bit image of it')
    with pytest.raises(UnreadableImage, match=f'{name} cannot be decoded'):
        dataset(path)[0]
    assert image_problem(str(path)) is not None


def test_sixteen_bits_that_are_almost_black_are_found(tmp_path):
    path = tmp_path / 'x.png'
    sixteen(GREY.astype(np.uint16))(path)
    assert dataset(path)[0]['inputs'].max() == 0
    assert 'black' in image_problem(str(path))


def test_inspection_reads_what_training_reads(tmp_path, monkeypatch):
    """An image beyond Pillow's limit is one that OpenCV takes."""
    path = tmp_path / 'large.png'
    WHOLE.save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert image_problem(str(path)) is None
