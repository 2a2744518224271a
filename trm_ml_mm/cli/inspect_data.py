"""Look at what a config trains and tests on, and judge it."""
import argparse
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from trm_ml_mm.utils.configs import SPLITS

from .arguments import add_config, command, parse
from .next_command import next_command

STATUS = ('exit status: 0 nothing to mend; 1 there are warnings or errors, '
          'all of them are printed; 2 the command itself is wrong')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Count images and labels of every split of a config, '
        'judge them, find unreadable files, and save pictures of samples with '
        'their known labels', epilog=STATUS)
    add_config(parser)
    parser.add_argument(
        '--split', choices=SPLITS, help='look at this one only (default: all)')
    parser.add_argument('--out', help='folder of the pictures (default: the '
                        'work dir of the config)')
    parser.add_argument(
        '--samples', type=int, default=12, help='images in a picture')
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the samples')
    parser.add_argument(
        '--no-decode', action='store_true',
        help='do not decode every image to find unreadable ones')
    return parse(parser, argv)


class Inspected(NamedTuple):
    """What one look at a split found."""

    findings: list
    paths: List[str]  # of its image files
    folders: Dict[str, None]  # of the user's own images; a set in order
    backend: object = None  # where they are read from; None: from files


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    from rich.console import Console

    from trm_ml_mm.datasets.inspection import ERROR, NOTE, Finding
    from trm_ml_mm.engine import load_config
    from trm_ml_mm.utils.configs import tests_on_validation
    cfg = load_config(args.config, args.cfg_options)
    console = Console()
    splits = [args.split] if args.split else [
        split for split in SPLITS if cfg.get(f'{split}_dataloader')
        and not (split == 'test' and tests_on_validation(cfg))]
    seen, findings = {}, []
    for split in splits:
        try:
            seen[split] = inspect_split(cfg, split, args, console)
        except (ValueError, FileNotFoundError) as error:
            seen[split] = Inspected([Finding(ERROR, str(error))], [], {})
        findings += [Finding(level, f'{split}: {text}')
                     for level, text in seen[split].findings]
    if not args.split:
        if tests_on_validation(cfg):
            findings.append(Finding(NOTE, said_of_test(cfg)))
        findings += judge_together(seen)
    for level, text in findings:
        console.print(f'{level}: {text}', soft_wrap=True, markup=False,
                      highlight=False)
    if any(level != NOTE for level, _ in findings):
        sys.exit(1)
    console.print('Nothing to mend. Train: ' + next_command(
        'train', args.config, given=args.given_options), soft_wrap=True,
        markup=False, highlight=False)


def inspect_split(cfg, split: str, args: argparse.Namespace,
                  console) -> Inspected:
    """Print the numbers of a split, save its picture, and judge it."""
    from trm_ml_mm.datasets import known_labels_of, matrix_of
    from trm_ml_mm.datasets.inspection import (
        ERROR,
        Finding,
        find_unreadable,
        image_paths,
        images_backend,
        judge_labels,
        loader_of,
        some,
    )
    from trm_ml_mm.engine import build_dataset
    findings = judge_tables(cfg, split)
    if any(level == ERROR for level, _ in findings):
        return Inspected(findings, [], {})
    dataset = build_dataset(cfg, split)
    labels = matrix_of(dataset)
    classes = dataset.metainfo['classes']
    counts = labels.summary()
    findings += judge_labels(counts, classes, split == 'train')
    print_classes(console, split, classes, counts)
    broken, paths = {}, image_paths(dataset)
    if paths and not args.no_decode:
        broken = find_unreadable(paths, loader_of(dataset),
                                 backend=images_backend(dataset))
        if broken:
            words = [f'{path}: {why}' for path, why in broken.items()]
            findings.append(Finding(
                ERROR, f'{len(broken)} of {len(paths)} images cannot be used: '
                f'{some(words)}. Mend them, or take them out of the list'))
    print_facts(console, labels, counts, known_labels_of(dataset),
                len(broken) if paths and not args.no_decode else None)
    picture = save_samples(cfg, dataset, split, args, set(broken))
    if picture:
        console.print(f'Picture: {picture}', soft_wrap=True)
    return Inspected(findings, paths, own_folders(dataset),
                     images_backend(dataset) if paths else None)


def judge_tables(cfg, split: str) -> list:
    """Judge the CSV files of a split, before any cell is read as a label."""
    from mmengine.fileio import isfile

    from trm_ml_mm.datasets.inspection import (
        ERROR,
        Finding,
        judge_columns,
        some,
    )
    from trm_ml_mm.datasets.splits import read_raw
    from trm_ml_mm.labels import TableColumns
    from trm_ml_mm.utils.configs import backend_args_of, nested_dicts
    found = []
    for options in nested_dicts(cfg.get(f'{split}_dataloader') or {}):
        if not str(options.get('type')).endswith('CSVMultiLabel'):
            continue
        root = Path(options.get('data_root') or '')
        table = read_raw(root / options.ann_file, TableColumns(
            image=options.get('image_column', 'image'),
            positive=options.get('positive_column', 'positive'),
            ignored=tuple(options.get('ignore_columns') or ())))
        found += judge_columns(table, split == 'train')
        folder = root / (options.get('data_prefix') or '')
        args = backend_args_of(options.get('pipeline') or [])
        missing = [name for name in table.images if name and not isfile(
            folder / name, backend_args=args)]
        if missing:
            found.append(Finding(
                ERROR, f'{len(missing)} of {len(table.rows)} images of '
                f'{table.path} are not in {folder}: {some(missing)}. Mend '
                'the paths, or set image_folder'))
    return found


def print_classes(console, split: str, classes: Sequence[str],
                  counts) -> None:
    """The known labels of each class."""
    from rich.markup import escape
    from rich.table import Table
    table = Table('class', 'known', 'positive', 'negative', 'unknown',
                  title=split)
    for name, *numbers in zip(classes, counts.known, *counts[:3]):
        table.add_row(escape(name), *map(str, numbers))
    console.print(table)


def print_facts(console, labels, counts, known: Optional[dict],
                broken: Optional[int]) -> None:
    """The numbers of a whole split."""
    from rich.table import Table
    total = int(counts.known.sum())
    ratio = total / (counts.images * labels.shape[1])
    facts = Table(show_header=False)
    for name, value in [
        ('images', len(labels)),
        ('classes', labels.shape[1]),
        ('known labels', f'{total} ({100 * ratio:.2f}%)'),
        ('positive', counts.positive.sum()),
        ('negative', counts.negative.sum()),
        ('unknown', counts.unknown.sum()),
        ('images without a known label', counts.images_without),
        ('classes without a known positive', (counts.positive == 0).sum()),
    ]:
        facts.add_row(name, str(value))
    if known:
        facts.add_row('mask', f'known={known["known"]} seed={known["seed"]} '
                      f'hash={known["hash"]}')
    if broken is not None:
        facts.add_row('unreadable files', str(broken))
    console.print(facts)


def save_samples(cfg, dataset, split: str, args: argparse.Namespace,
                 broken: set) -> Optional[Path]:
    """A picture of some images with their known labels."""
    import numpy as np

    from trm_ml_mm.datasets.inspection import (
        image_paths,
        image_problem,
        images_backend,
        loader_of,
    )
    from trm_ml_mm.engine import work_dir_of
    from trm_ml_mm.visualization import draw_samples
    paths, chosen = image_paths(dataset), []
    is_loaded, backend = loader_of(dataset), images_backend(dataset)
    for i in np.random.RandomState(args.seed).permutation(len(dataset)):
        if len(chosen) < args.samples and not (paths and (
                paths[i] in broken
                or image_problem(paths[i], is_loaded, backend))):
            chosen.append(i)
    if not chosen:
        return None
    out = Path(args.out or work_dir_of(cfg))
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f'samples_{split}.png'
    draw_samples(dataset, str(picture), sorted(chosen))
    return picture


def own_folders(dataset) -> Dict[str, None]:
    """Image folders that belong to the user's own tables."""
    from trm_ml_mm.datasets import CSVMultiLabel, JSONMultiLabel
    if isinstance(dataset, (CSVMultiLabel, JSONMultiLabel)):
        return {dataset.img_prefix: None}
    inner = getattr(dataset, 'datasets', None) or [
        data for data in [getattr(dataset, 'dataset', None)]
        if data is not None]
    return {folder: None for data in inner for folder in own_folders(data)}


def said_of_test(cfg) -> str:
    """That the test set is the validation set, and what to do about it."""
    text = ('The test set is the validation set: the best epoch is picked on '
            'it, so the figures of that epoch are optimistic.')
    data = cfg.test_dataloader.dataset
    own = Path(data.get('data_root') or '', 'test.csv')
    if str(data.get('type')).endswith('CSVMultiLabel') and own.is_file():
        text += (f' {own} is there: test_dataloader.dataset.ann_file=test.csv '
                 'tests on it.')
    return text


def judge_together(seen: Dict[str, Inspected]) -> list:
    """What only a look at all splits shows."""
    from trm_ml_mm.datasets.inspection import (
        NOTE,
        WARNING,
        Finding,
        shared_images,
        some,
        unnamed_images,
    )
    found = []
    paths = {split: inspected.paths for split, inspected in seen.items()}
    backends = {split: inspected.backend for split, inspected in seen.items()
                if inspected.backend is not None}
    for (one, other), pairs in shared_images(paths, backends).items():
        names = [f'{Path(a).name} = {Path(b).name}' for a, b in pairs]
        found.append(Finding(
            WARNING, f'{len(pairs)} images of {other} are in {one} too, so '
            f'figures of {other} are too good: {some(names)}'))
    folders = {folder: None for inspected in seen.values()
               for folder in inspected.folders}
    named = [path for part in paths.values() for path in part]
    for folder in folders:
        without = unnamed_images(folder, named)
        if without:
            found.append(Finding(
                NOTE, f'{len(without)} images in {folder} are in no table: '
                f'{some([Path(p).relative_to(folder) for p in without])}'))
    return found
