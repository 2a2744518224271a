"""Label images with a trained model."""
import argparse
import csv
import json
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterator, List, Optional, TextIO

from trm_ml_mm.utils.io import atomic_write
from trm_ml_mm.utils.screen import track

from .arguments import add_checkpoint, command, parse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Predict the labels of images')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT',
        help='images, folders, or patterns in quotation marks')
    add_checkpoint(parser)
    parser.add_argument(
        '--out', metavar='FOLDER',
        help='draw each image, and where its labels are')
    parser.add_argument(
        '--json', metavar='FILE', help='write a line of JSON for each image')
    parser.add_argument(
        '--csv', metavar='FILE',
        help='write a table: a line for each image, a score for each class')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='only these classes')
    parser.add_argument(
        '--words', nargs='+', metavar='NAME', help='these classes in place of '
        'those of the training; a new one is recognised by its words alone')
    parser.add_argument(
        '--top', type=int, default=5,
        help='labels of each image in the printed table, and in --json')
    parser.add_argument(
        '--all', action='store_true',
        help='with --json: every class, and where it was seen')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument(
        '--workers', type=int, default=0, help='processes that read images')
    parser.add_argument(
        '--tta', nargs='*', type=float, metavar='SCALE',
        help='average over each image and its mirror image, at these scales '
        'of the test size (default: 1)')
    parser.add_argument(
        '--tiles', type=int, default=1,
        help='large images: look at this many tiles a side too')
    parser.add_argument(
        '--rows', type=int, default=50,
        help='images in the printed table; the files have all')
    return parse(parser)


@command
def main() -> None:
    args = parse_args()
    from rich.console import Console

    from trm_ml_mm.apis import MultiLabelInferencer, load_model, with_classes
    from trm_ml_mm.datasets.images import find_images
    images = find_images(args.inputs)
    loaded = load_model(args.checkpoint, args.config, weights=args.weights)
    if args.words:
        loaded = with_classes(loaded, args.words)
    predict = MultiLabelInferencer(
        loaded, device=args.device,
        tta=None if args.tta is None else args.tta or (1., ),
        tiles=args.tiles, only=args.classes)
    rows, unreadable, count = [], [], 0
    console = Console()
    with ExitStack() as files:
        writers = writers_of(args, files, [predict.classes[c]
                                          for c in predict.wanted])
        for result in track(
                predict.stream(images, batch_size=args.batch_size,
                               maps=args.all, show_dir=args.out,
                               skip_unreadable=True, workers=args.workers),
                'Predicting', len(images)):
            for write in writers:
                write(result)
            if 'error' in result:
                unreadable.append(result)
                continue
            count += 1
            if len(rows) < args.rows:
                rows.append(result)
    print_table(console, rows, args.top, count)
    for path in (args.json, args.csv, args.out):
        if path:
            console.print(f'Written: {path}', soft_wrap=True, markup=False)
    for result in unreadable:
        console.print(result['error'], soft_wrap=True, markup=False)
    if unreadable:
        console.print(f'{len(unreadable)} of {len(images)} images could not '
                      'be read.')
    if not count:
        sys.exit(2)


def writers_of(args: argparse.Namespace, files: ExitStack, classes
               ) -> List[Callable[[dict], None]]:
    """What writes a result into each of the files that were asked for."""
    found = []
    if args.json:
        found.append(json_lines(files.enter_context(whole_file(args.json)),
                                None if args.all else args.top))
    if args.csv:
        found.append(csv_table(files.enter_context(whole_file(args.csv)),
                               classes))
    return found


@contextmanager
def whole_file(path: str) -> Iterator[TextIO]:
    """A text file that is there when everything is written, or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as fresh:
        with open(fresh, 'w', encoding='utf-8', newline='') as file:
            yield file


def json_lines(file: TextIO, top: Optional[int]) -> Callable[[dict], None]:
    """Writes a result as a line of JSON, with its ``top`` labels."""
    def write(result: dict) -> None:
        plain = dict(result)
        if 'labels' in plain:
            plain['labels'] = [
                {key: value.tolist() if hasattr(value, 'tolist') else value
                 for key, value in label.items()}
                for label in plain['labels'][:top]]
        file.write(json.dumps(plain, ensure_ascii=False) + '\n')
    return write


def csv_table(file: TextIO, classes) -> Callable[[dict], None]:
    """Writes the score of every class as a line of a table."""
    table = csv.writer(file, lineterminator='\n')
    table.writerow(['image', *classes])

    def write(result: dict) -> None:
        if 'labels' not in result:
            return
        scores = {label['name']: label['score'] for label in result['labels']}
        table.writerow([result['image'],
                        *(f'{scores[name]:.6f}' for name in classes)])
    return write


def print_table(console, rows: List[dict], top: int, count: int) -> None:
    """Print the ``top`` labels of each image; those that are present bold."""
    from rich.markup import escape
    from rich.table import Table
    table = Table('image', 'labels (bold: present)')
    for result in rows:
        table.add_row(escape(result['image']), ', '.join(
            (f'[bold]{escape(label["name"])} {label["score"]:.2f}[/]'
             if label['present'] else
             f'[dim]{escape(label["name"])} {label["score"]:.2f}[/]')
            for label in result['labels'][:top]))
    if rows:
        console.print(table)
    if count > len(rows):
        console.print(f'... and {count - len(rows)} more images: --json or '
                      '--csv has all.')
