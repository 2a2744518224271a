"""Write built-in scenes as image files and a table with blanks."""
import argparse
import csv
from pathlib import Path

from .arguments import command, parse, setting

CELLS = {1: '1', 0: '0'}  # anything else is blank


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write built-in scenes as image files, and their labels '
        'as a table with blanks, to try what works on photos of your own')
    parser.add_argument('--out', required=True, metavar='FOLDER',
                        help='a new folder')
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--split', choices=['train', 'val', 'test'],
                        default='train')
    parser.add_argument(
        '--known', type=setting, default=0.4,
        help="proportion of labels in the table, 'single_positive' or 'all'")
    parser.add_argument('--scene-set', type=int, default=0)
    return parse(parser)


@command
def main() -> None:
    args = parse_args()
    import cv2

    from trm_ml_mm.datasets import PartialLabelDataset, Scenes
    from trm_ml_mm.datasets.scenes.world import draw
    from trm_ml_mm.labels import UNKNOWN
    from trm_ml_mm.utils.io import atomic_write
    out = Path(args.out)
    if out.exists():
        raise FileExistsError(f'{out} exists already: give a new folder.')
    (out / 'images').mkdir(parents=True)
    scenes = Scenes(args.split, args.images, args.scene_set)
    labels = PartialLabelDataset(scenes, args.known).labels
    table = out / 'labels.csv'
    with atomic_write(table) as fresh, open(
            fresh, 'w', encoding='utf-8', newline='') as file:
        rows = csv.writer(file, lineterminator='\n')
        rows.writerow(['image', *scenes.class_names])
        for i, row in enumerate(labels.tolist()):
            name = f'{i:05d}.png'
            if not cv2.imwrite(str(out / 'images' / name), draw(
                    scenes.get_data_info(i)['scene'])):
                raise OSError(f'{out / "images" / name} cannot be written.')
            rows.writerow([name, *(CELLS.get(value, '') for value in row)])
    print(f'{out / "images"}: {args.images} images\n'
          f'{table}: {(labels != UNKNOWN).mean():.0%} of the labels known')
