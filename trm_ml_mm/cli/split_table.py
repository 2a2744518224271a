"""Split one table of images and labels into training, validation and test."""
import argparse
import hashlib
import json
import shlex
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from trm_ml_mm.utils.configs import SPLITS

from .arguments import add_table_columns, command, parse
from .next_command import next_command

CONFIG, SMALL_CONFIG = 'trm_ml_csv', 'trm_ml_csv_small'
DATA_ROOT = 'data/own'  # of both
FORMAT = 1  # of split.json
SHOWN = 10  # groups of duplicates, unreadable images
LARGE_GROUP = .2  # of all images: no longer a few copies of a picture


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Split one CSV file of images and labels into train.csv, '
        'val.csv and test.csv. Copies of a picture, also resized or mirrored '
        'ones, go to the same side. split.json beside them says how it was '
        'done.')
    parser.add_argument('table', help='CSV file with a header')
    parser.add_argument('--images', required=True, metavar='FOLDER',
                        help='folder that the paths in the table start from')
    parser.add_argument('--out', metavar='DIR', help='where the tables go '
                        '(default: beside the table)')
    parser.add_argument('--val', type=float, help='ratio of images for '
                        'validation (default: 0.1)')
    parser.add_argument('--test', type=float, help='ratio of images for the '
                        'test; 0: no test set (default: 0.1)')
    parser.add_argument('--seed', type=int, help='draws the split '
                        '(default: 0)')
    parser.add_argument('--column', help='split by this column instead, whose '
                        'cells are train, val or test')
    parser.add_argument('--group', metavar='COLUMN', help='rows with the same '
                        'cell in this column stay together, such as a '
                        'patient or a place; a blank cell is no group')
    add_table_columns(parser)
    parser.add_argument('--near-bits', type=int, help='perceptual hashes that '
                        'differ in at most so many of 256 bits are of one '
                        'picture (default: 32); 0: equal hashes only')
    parser.add_argument('--keep-duplicates', action='store_true',
                        help='do not decode images or look for duplicates: '
                        'copies may be on both sides')
    parser.add_argument('--drop-unreadable', action='store_true',
                        help='leave rows out whose image is missing or cannot '
                        'be decoded, instead of stopping')
    parser.add_argument('--keep', action='store_true',
                        help='images of the tables in --out stay in their '
                        'splits, with the labels of this table; only new ones '
                        'are dealt out')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace the tables of an earlier split')
    return parse(parser, argv)


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    import numpy as np

    from trm_ml_mm.datasets.duplicates import Partition
    from trm_ml_mm.datasets.splits import (
        earlier_split,
        read_labels,
        read_raw,
        split_at_random,
        split_by_column,
    )
    from trm_ml_mm.labels import PRESENT, ImageNames, TableColumns
    from trm_ml_mm.utils.io import existing
    check_arguments(args)
    folder = existing(args.images, 'Image folder', 'give the folder that the '
                      'paths in the table start from')
    ignored = tuple(dict.fromkeys(
        name for name in (*args.ignore_columns, args.column, args.group)
        if name))
    table = read_raw(args.table, TableColumns(args.image_column,
                                              ignored=ignored))
    for name in ignored:
        table.column(name)  # or it says that there is none
    check_columns(table)
    classes, labels = read_labels(table)
    names = table.images
    parts = split_by_column(table, args.column) if args.column else None
    out = Path(args.out) if args.out else table.path.parent
    earlier = earlier_split(out, table.columns) if args.keep else {}
    files = output_files(args, out, table, parts, earlier)
    known = ImageNames(folder, must_exist=False)
    paths = [known.path(name, table.where(i)) for i, name in enumerate(names)]

    sets = Partition(len(names))
    duplicates = find_duplicates(args, table, names, paths, sets)
    if args.group:
        sets.join_equal([cell or None for cell in table.column(args.group)])
    rows = np.array([i for i in range(len(names))
                     if i not in duplicates.unreadable], np.int64)
    roots = sets.roots()[rows]
    used = [names[i] for i in rows]
    if args.column:
        parts = parts[rows]
        check_sides(parts, roots, used)
    else:
        kept = np.array([SPLITS.index(earlier[name]) if name in earlier
                         else -1 for name in used], np.int64)
        check_sides(kept[kept >= 0], roots[kept >= 0],
                    [name for name in used if name in earlier])
        parts = split_at_random(roots, labels[rows] == PRESENT,
                                ratios_of(args), args.seed or 0, kept)
    chosen = {split: rows[parts == s] for s, split in enumerate(SPLITS)
              if split in files}
    write_files(args, table, files, chosen, classes, dict(
        kept=sum(name in earlier for name in used),
        left_out={names[i]: why for i, why in duplicates.unreadable.items()},
        groups=[[names[i] for i in group] for group in sets.groups()]))
    print_report(args, table, classes, duplicates,
                 {split: labels[part] for split, part in chosen.items()})
    if args.keep:
        print(f'{sum(name in earlier for name in used)} images stayed where '
              f'they were, {sum(name not in earlier for name in used)} are '
              f'new, {len(earlier.keys() - set(names))} of the earlier tables '
              'are not in this one.')
    print_next(files, folder, args.image_column, ignored)


def check_columns(table) -> None:
    """Refuse a table with columns that cannot be classes.

    Raises:
        ValueError: Names them all, with the option that ignores them.
    """
    from trm_ml_mm.datasets.inspection import some, stray_columns
    stray = stray_columns(table)
    if stray:
        words = [f'"{name}" ({what})' for name, what in stray.items()]
        raise ValueError(
            f'{table.path} has columns that are no labels: {some(words)}. '
            'Labels are 1 (present), 0 (absent) or blank (unknown). If they '
            f'are no classes: --ignore-columns {shlex.join(stray)}')


class Duplicates(NamedTuple):
    """What a look at all images found; indices are rows of the table."""

    unreadable: Dict[int, str]  # and why
    exact: int  # images that are an equal file of an earlier one
    near: int  # and those that are another copy of an earlier picture
    groups: List[List[int]]


def find_duplicates(args: argparse.Namespace, table, names: Sequence[str],
                    paths: Sequence[str], sets) -> Duplicates:
    """Decode all images, and join copies of one picture in ``sets``.

    Raises:
        ValueError: If an image cannot be used, and must not be left out; or
            if none can.
    """
    from trm_ml_mm.datasets.duplicates import (
        NEAR_BITS,
        join_duplicates,
        scan_images,
    )
    if args.keep_duplicates:
        return Duplicates({}, 0, 0, [])
    scans = scan_images(paths)
    unreadable = {i: scan.problem for i, scan in enumerate(scans)
                  if scan.problem}
    if len(unreadable) == len(names):
        raise ValueError(
            f'None of the {len(names)} images of {table.path} can be read, '
            f'from {paths[0]} on: --images is the folder that the paths in '
            'the table start from.')
    if unreadable and not args.drop_unreadable:
        listed = shown([f'{table.where(i)}: {names[i]} {why}'
                        for i, why in unreadable.items()])
        raise ValueError(
            f'{len(unreadable)} of {len(names)} images cannot be used; mend '
            f'them, or leave their rows out with --drop-unreadable.\n{listed}')
    exact, near = join_duplicates(
        sets, scans, NEAR_BITS if args.near_bits is None else args.near_bits)
    return Duplicates(unreadable, exact, near, sets.groups())


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that would change nothing.

    Raises:
        ValueError: Names the first.
    """
    pairs = [('--column', args.column, name)
             for name in ('val', 'test', 'seed')]
    pairs += [('--column', args.column, 'keep'),
              ('--keep', args.keep, 'overwrite')]
    pairs += [('--keep-duplicates', args.keep_duplicates, name)
              for name in ('near_bits', 'drop_unreadable')]
    for other, is_given, name in pairs:
        if is_given and getattr(args, name) not in (None, False):
            raise ValueError(f'--{name.replace("_", "-")} changes nothing '
                             f'with {other}: leave one of them out.')


def ratios_of(args: argparse.Namespace) -> List[float]:
    """Ratios of training, validation and test.

    Raises:
        ValueError: If they leave nothing for training, or none for validation.
    """
    val = .1 if args.val is None else args.val
    test = .1 if args.test is None else args.test
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f'--val {val:g} --test {test:g}: they are ratios '
                         'between 0 and 1 whose sum is below 1, and only '
                         '--test may be 0.')
    return [1 - val - test, val, test]


def output_files(args: argparse.Namespace, out: Path, table, parts,
                 earlier: Dict[str, str]) -> Dict[str, Path]:
    """Where the splits, the record and the names of the classes go.

    Args:
        args: Of the command.
        out: Their folder.
        table: The table.
        parts: The split of each row, if a column says it; else None.
        earlier: Image -> split, of the tables that are there and are kept.

    Raises:
        ValueError: If one of the files is the table itself.
        FileExistsError: If one is there, and must not be replaced; or if the
            test set of an earlier split would stay.
    """
    has_test = ratios_of(args)[2] > 0 if parts is None else (
        SPLITS.index('test') in parts)
    files = {split: out / f'{split}.csv' for split in SPLITS
             if split != 'test' or has_test}
    files['record'] = out / 'split.json'
    if table.has_lists:
        files['classes'] = out / 'classes.txt'
    for path in files.values():
        if path.exists() and path.samefile(table.path):
            raise ValueError(f'{path} is the table itself, which would be '
                             'lost: give another folder with --out.')
        if path.exists() and not args.overwrite and not earlier:
            raise FileExistsError(
                f'{path} exists: give another folder with --out, deal out '
                'only new images with --keep, or replace it with --overwrite.')
    stale = out / 'test.csv'
    if not has_test and stale.exists():
        raise FileExistsError(f'{stale} exists, and this split has no test '
                              'set: remove the file, or give another --out.')
    return files


def check_sides(parts, roots, names: Sequence[str]) -> None:
    """Refuse a column that puts copies of one picture, or images of one
    group, on several sides.

    Raises:
        ValueError: Names some of them.
    """
    side, wrong = {}, {}
    for part, root, name in zip(parts, roots.tolist(), names):
        first = side.setdefault(root, (part, name))
        if first[0] != part:
            wrong.setdefault(root, f'{first[1]} ({SPLITS[first[0]]}), {name} '
                                   f'({SPLITS[part]})')
    if wrong:
        raise ValueError(
            f'{len(wrong)} groups of images, which are copies of one picture '
            'or belong together, are on several sides: correct the column or '
            'the tables, or see --near-bits and --keep-duplicates.\n'
            f'{shown(list(wrong.values()))}')


def shown(lines: Sequence[str]) -> str:
    """The first lines, and how many there are besides."""
    more = len(lines) - SHOWN
    return '\n'.join([*lines[:SHOWN],
                      *([f'... and {more} more'] if more > 0 else [])])


def write_files(args: argparse.Namespace, table, files: Dict[str, Path],
                chosen: dict, classes: Sequence[str], found: dict) -> None:
    """Write the tables and, last, the record of the split."""
    from trm_ml_mm.datasets.duplicates import NEAR_BITS
    from trm_ml_mm.datasets.splits import write_raw
    from trm_ml_mm.utils.io import write_text
    files['record'].parent.mkdir(parents=True, exist_ok=True)
    for split, part in chosen.items():
        write_raw(files[split], table, part)
    if 'classes' in files:
        write_text(files['classes'], '\n'.join(classes) + '\n')
    near_bits = NEAR_BITS if args.near_bits is None else args.near_bits
    how = dict(column=args.column) if args.column else dict(
        seed=args.seed or 0, ratios=dict(zip(SPLITS, ratios_of(args))))
    record = dict(
        format=FORMAT,
        table=dict(file=table.path.name, sha256=sha256_of(table.path)),
        **how,
        group_column=args.group,
        near_bits=None if args.keep_duplicates else near_bits,
        splits={split: dict(file=files[split].name, images=len(part),
                            sha256=sha256_of(files[split]))
                for split, part in chosen.items()},
        **found)
    write_text(files['record'],
               json.dumps(record, indent=1, ensure_ascii=False) + '\n')


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def print_report(args: argparse.Namespace, source, classes: Sequence[str],
                 duplicates: Duplicates, labels: dict) -> None:
    """Sizes, classes and duplicates."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from trm_ml_mm.datasets.inspection import constant_columns, some
    from trm_ml_mm.labels import summarize_labels
    console, names = Console(), source.images
    counts = {split: summarize_labels(part) for split, part in labels.items()}
    table = Table('class', *(f'{split} {sign}' for split in counts
                             for sign in ('+', '-')),
                  title='Known labels of each class: present (+), absent (-)')
    for column in table.columns[1:]:
        column.justify = 'right'
    for c, name in enumerate(classes):
        table.add_row(escape(name), *(
            str(kind[c]) for count in counts.values()
            for kind in (count.positive, count.negative)))
    console.print(table)
    table = Table('split', 'images', 'share', 'classes without a present one')
    total = sum(map(len, labels.values()))
    for split, part in labels.items():
        table.add_row(split, str(len(part)), f'{100 * len(part) / total:.1f}%',
                      str(int((counts[split].positive == 0).sum())))
    console.print(table)
    groups = [', '.join(names[i] for i in group)
              for group in duplicates.groups]
    if args.keep_duplicates:
        lines = ['Duplicates were not looked for: copies of a picture may be '
                 'on both sides.']
    elif groups:
        lines = [f'Copies of one picture, {len(groups)} groups, each in one '
                 f'split: {duplicates.exact} images are the same file as '
                 f'another one, {duplicates.near} the same picture.',
                 shown(groups)]
    else:
        lines = ['No two images are the same picture.']
    largest = max(map(len, duplicates.groups), default=0)
    if largest > LARGE_GROUP * total:
        lines += [f'Warning: one group has {largest} images. Do they look '
                  'alike without being copies (scans, drawings)? Then lower '
                  '--near-bits.']
    constant = constant_columns(source)
    if constant:
        lines += [f'Warning: {some(constant)}: the same value in every row. '
                  'If it is no class: --ignore-columns.']
    if duplicates.unreadable:
        lines += [f'Left out, {len(duplicates.unreadable)} images:',
                  shown([f'{names[i]} {why}' for i, why in
                         duplicates.unreadable.items()])]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_next(files: Dict[str, Path], folder: Path, image_column: str,
               ignored: Sequence[str]) -> None:
    """Where everything is, and the commands that go on from here."""
    import torch
    out = files['record'].parent
    options = {}
    if out != Path(DATA_ROOT):
        options['data_root'] = str(out)
    if folder.resolve() != (out / 'images').resolve():
        options['image_folder'] = str(folder)
    if image_column != 'image':
        options['image_column'] = image_column
    if ignored:
        options['ignore_columns'] = ','.join(ignored)
    if 'classes' in files:
        options['train_dataloader.dataset.dataset.classes'] = str(
            files['classes'])
    if 'test' in files:
        options['test_dataloader.dataset.ann_file'] = 'test.csv'
    print(f'Written: {", ".join(map(str, files.values()))}')
    if 'test' not in files:
        print('There is no test set: the validation set is the test set too, '
              'so the best epoch is picked on it, and its figures are '
              'optimistic.')
    config = CONFIG if torch.cuda.is_available() else SMALL_CONFIG
    print(f'Look:  {next_command("inspect_data", config, options=options)}')
    print(f'Train: {next_command("train", config, options=options)}')
