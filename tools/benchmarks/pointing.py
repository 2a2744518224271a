"""The pointing game on the built-in scenes: does the peak of a map lie on the
object?
python tools/benchmarks/pointing.py work_dirs/trm_ml_scenes/epoch_10.pth \
    work_dirs/text_pixel/epoch_10.pth

Counted are labels that are predicted and right. A peak is on the object if it
hits one of its visible pixels ("pixels"), or its bounding box ("box"), or is
at most 3 pixels from a visible pixel ("3 px"): the published game (Zhang et
al., arXiv 1608.00507) allows 15 pixels in images of about 500, and scenes have
96. A random point is on the object as often as "area" says.
"""
import argparse
from typing import Dict, Tuple

import numpy as np
from rich.console import Console
from rich.table import Table

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.datasets.scenes.rendering import object_mask
from trm_ml_mm.datasets.scenes.world import (
    compose_scene,
    draw,
    scene_boxes,
    scene_labels,
)
from trm_ml_mm.labels.names import scene_classes

SIZE = 96
TOLERANCE = 3


def parse_args():
    parser = argparse.ArgumentParser(
        description='The pointing game on the built-in scenes')
    parser.add_argument('checkpoints', nargs='+')
    parser.add_argument('--images', type=int, default=500)
    parser.add_argument('--split', default='test', choices=['val', 'test'])
    parser.add_argument('--scene-set', type=int, default=0)
    return parse(parser)


def visible_pixels(scene_set: int, split: str, index: int
                   ) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """Of each name in a scene: its visible pixels, and the boxes around its
    objects; ``(SIZE, SIZE)`` bool each."""
    _, objects = compose_scene(scene_set, split, index, SIZE)
    masks = [object_mask(o, SIZE) > 127 for o in objects]
    found = {}
    for i, (thing, mask) in enumerate(zip(objects, masks)):
        hidden = np.any([np.zeros_like(mask), *masks[i + 1:]], axis=0)
        pixels, _ = found.setdefault(thing.name, (
            np.zeros_like(mask), np.zeros_like(mask)))
        pixels |= mask & ~hidden
    for name, (left, top, right, bottom) in scene_boxes(
            scene_set, split, index, SIZE):
        found[name][1][top:bottom, left:right] = True
    return found


def distance(pixels: np.ndarray, x: int, y: int) -> float:
    rows, columns = np.nonzero(pixels)
    return np.hypot(rows - y, columns - x).min() if len(rows) else np.inf


@command
def main():
    args = parse_args()
    where = args.scene_set, args.split
    images = [draw((*where, i, SIZE)) for i in range(args.images)]
    truth = scene_labels(*where, args.images, SIZE)
    names = scene_classes(args.scene_set)
    table = Table('checkpoint', 'head', 'labels', 'pixels', 'box',
                  f'{TOLERANCE} px', 'area',
                  title=f'Peaks on their objects (percent), {args.images} '
                  f'scenes of {args.split}')
    for path in args.checkpoints:
        predict = MultiLabelInferencer(path)
        hits = []
        for i, result in enumerate(predict(images, maps=True)):
            found = visible_pixels(*where, i)
            for label in result['labels']:
                if label['present'] and names.index(label['name']) in truth[i]:
                    x, y = label['peak']
                    pixels, box = found[label['name']]
                    hits.append((pixels[y, x], box[y, x],
                                 distance(pixels, x, y) <= TOLERANCE,
                                 pixels.mean()))
        means = 100 * np.mean(hits, axis=0)
        table.add_row(path, type(predict.model.head).__name__, str(len(hits)),
                      *(f'{value:.1f}' for value in means))
    Console().print(table)


if __name__ == '__main__':
    main()
