"""Peaks and boxes in pixels of the image."""
import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmpretrain.registry import TRANSFORMS

from trm_ml_mm.visualization.regions import Area, box_of, peak_of, seen_area

WHOLE = Area(0, 0, 200, 100)


def test_a_peak_is_in_its_cell_and_leans_to_its_neighbours():
    values = np.zeros((5, 10))
    values[2, 3] = 1.
    assert peak_of(values, WHOLE) == (70, 50)  # the middle of the cell
    values[2, 4] = 1.
    assert peak_of(values, WHOLE) == (80, 50)  # the border of two
    values[0, 9] = .9  # another place has no say
    assert peak_of(values, WHOLE) == (80, 50)


def test_a_peak_at_the_border_stays_inside():
    values = np.zeros((5, 10))
    values[0, 9] = 1.
    assert peak_of(values, WHOLE) == (190, 10)
    assert peak_of(np.ones((1, 1)), WHOLE) == (100, 50)


def test_a_box_goes_around_the_part_with_the_peak():
    values = np.zeros((20, 20))
    values[4:8, 2:10] = 1.
    values[5, 5] = 2.
    values[15:18, 15:18] = 1.5  # another part
    left, top, right, bottom = box_of(values, Area(0, 0, 200, 200), .5)
    # Enlarging blurs by at most half a cell.
    assert np.abs(np.array([left - 20, top - 40, right - 100, bottom - 80])
                  ).max() <= 5


def test_a_flat_map_is_the_whole_area():
    assert box_of(np.ones((3, 3)), Area(10, 0, 40, 30)) == (10, 0, 40, 30)


@pytest.mark.parametrize('steps', [
    [dict(type='Resize', scale=(64, 64))],
    [dict(type='ResizeEdge', scale=48)],
    [dict(type='ResizeEdge', scale=96, edge='long')],
    [dict(type='ResizeEdge', scale=48), dict(type='CenterCrop', crop_size=32)],
    [dict(type='Resize', scale=(90, 60)),
     dict(type='CenterCrop', crop_size=(40, 70))],
    [dict(type='Resize', scale_factor=.5), dict(type='CenterCrop',
                                                crop_size=40)],
    [dict(type='Resize', scale=(64, 40), keep_ratio=True),
     dict(type='CenterCrop', crop_size=24)],
    [dict(type='CenterCrop', crop_size=500)],
])
def test_the_area_is_what_the_pipeline_shows(steps):
    """Against an image whose pixels say where they are."""
    init_default_scope('mmpretrain')
    width, height = 160, 120
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    seen = pipeline(dict(img=image, img_shape=image.shape[:2]))['img']
    seen = cv2.blur(seen, (3, 3))[1:-1, 1:-1].astype(float)
    area = seen_area(steps, width, height)
    scale = max((area.right - area.left) / seen.shape[1],
                (area.bottom - area.top) / seen.shape[0])
    found = np.array([seen[..., 0].min(), seen[..., 1].min(),
                      seen[..., 0].max(), seen[..., 1].max()])
    assert np.abs(found - np.array(area)).max() <= 2 * scale + 1
