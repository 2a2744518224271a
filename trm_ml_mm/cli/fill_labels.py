"""Fill in the blanks of a table of labels; ask people for the rest."""
import argparse
import csv
import os
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Tuple

from trm_ml_mm.utils.checks import check_choice, check_inside, check_positive
from trm_ml_mm.utils.io import atomic_write, existing

from .arguments import (
    add_cfg_options,
    add_model,
    add_table_columns,
    columns_of,
    command,
    parse,
)

TOOLS = ('labelstudio', 'cvat')
STRATEGIES = ('uncertainty', 'gain', 'random')
SHOWN = 10  # unreadable images


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Fill in the unknown labels of a table where the model of '
        'a checkpoint is sure; known labels stay as they are. List the labels '
        'that are worth asking a person for, and the known ones that are '
        'probably wrong. Exchange questions and answers with annotation '
        'tools.')
    parser.add_argument(
        'table', metavar='TABLE', help='CSV file with blanks; or a config, '
        'whose training set is meant')
    parser.add_argument(
        '--checkpoint', help='checkpoint of a training on this table '
        '(not needed for --import)')
    add_model(parser)
    parser.add_argument('--images', metavar='FOLDER', help='folder that the '
                        'paths in the table start from')
    parser.add_argument('--out', required=True, metavar='FILE',
                        help='the filled table, a CSV file; the other files '
                        'are written beside it')
    add_filling(parser)
    add_questions(parser)
    add_exchange(parser)
    add_table_format(parser)
    return parse(parser, argv)


def add_filling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('how labels are filled in')
    group.add_argument(
        '--precision', type=float, nargs='+', default=[.95],
        metavar='RATIO', help='ratio of filled labels that shall be right; '
        'two numbers: of "present" and of "absent" (default: 0.95)')
    group.add_argument(
        '--guarantee', type=float, metavar='CONFIDENCE', help='reach that '
        'precision with this confidence, such as 0.9; fills in less (default: '
        'the estimated precision is the wanted one)')
    group.add_argument(
        '--calibrate-on', metavar='TABLE', help='CSV file of further labelled '
        'images in the same folder, such as a validation set; they sharpen '
        'the thresholds. A config has its own.')
    group.add_argument(
        '--folds', type=int, default=5, help='every image is judged by one of '
        'so many models, that was trained without it (default: 5)')
    group.add_argument(
        '--unseen', action='store_true', help='the checkpoint was not trained '
        'on the images of this table: judge them by it, and train nothing')
    group.add_argument(
        '--tta', nargs='*', type=float, metavar='SCALE',
        help='average over each image and its mirror image, at these scales '
        'of the test size (default: 1)')
    group.add_argument('--seed', type=int, default=0,
                       help='of the folds, and of --strategy random')
    group.add_argument('--workers', type=int, default=0,
                       help='processes that read images')
    group.add_argument(
        '--features', metavar='FOLDER', help='keep the features of the images '
        'there, so that the next time is faster')
    add_cfg_options(group)


def add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('what to ask people')
    group.add_argument(
        '--ask', type=int, metavar='N',
        help='list the N unknown labels most worth asking for')
    group.add_argument(
        '--strategy', choices=STRATEGIES, default=STRATEGIES[0],
        help='uncertainty: where the model knows least (default); gain: the '
        'same, but sooner in classes with few known positives; random')
    group.add_argument(
        '--suspicious', type=int, metavar='N',
        help='list at most N known labels that are probably wrong')


def add_exchange(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('annotation tools')
    group.add_argument(
        '--export', nargs=2, metavar=('TOOL', 'FILE'),
        help=f'write the questions of --ask and --suspicious for a tool '
        f'({", ".join(TOOLS)})')
    group.add_argument(
        '--image-url', help='Label Studio: what goes before the name of an '
        'image in its address')
    group.add_argument(
        '--import', dest='answers', metavar='FILE', help='write the answers '
        'of people into the table, and nothing else (.json: Label Studio; '
        '.xml or .zip: CVAT)')
    group.add_argument(
        '--overwrite', action='store_true', help='with --import: an answer '
        'replaces a known label that it contradicts')


def add_table_format(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('the columns of the table')
    add_table_columns(group)
    group.add_argument(
        '--classes', nargs='+', metavar='NAME', help='with --import, for a '
        'table that lists classes in a column: the names, or a file of them')


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    check(args)
    if args.answers:
        import_answers(args)
    else:
        fill(args)


def check(args: argparse.Namespace) -> None:
    """Refuse early what would fail after a long time.

    Raises:
        ValueError, OSError: Says which option to change.
    """
    folder = existing(Path(args.out).parent, 'The folder', 'create it')
    if not os.access(folder, os.W_OK):
        raise PermissionError(f'{folder} cannot be written to: give another '
                              '--out.')
    if is_same_file(args.out, args.table):
        raise ValueError(f'--out {args.out} is the table itself, whose known '
                         'labels could then no longer be told from filled '
                         'ones: give another file.')
    if args.answers:
        return
    if not args.checkpoint:
        raise ValueError('Give the --checkpoint of a training.')
    if not is_config(args.table) and not args.images:
        raise ValueError(f'{args.table} is a table: give --images, the folder '
                         'that its paths start from.')
    if len(args.precision) > 2:
        raise ValueError('--precision takes one number, or two: of "present" '
                         f'and of "absent"; got {len(args.precision)}.')
    for ratio in args.precision:
        check_inside(**{'--precision': ratio})
    if args.guarantee is not None:
        check_inside(**{'--guarantee': args.guarantee})
    for name in ('ask', 'suspicious'):
        if getattr(args, name) is not None:
            check_positive(**{f'--{name}': getattr(args, name)})
    if args.export:
        check_choice(TOOLS, **{'--export': args.export[0]})
        if args.ask is None and args.suspicious is None:
            raise ValueError('--export writes questions: give --ask N, or '
                             '--suspicious N.')


def is_config(table: str) -> bool:
    """A config file, or the name of one of the package's."""
    return Path(table).suffix in ('.py', '')


def is_same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and (
        os.path.samefile(one, other))


def fill(args: argparse.Namespace) -> None:
    """Judge, fill in, report, list questions."""
    from rich.console import Console

    from trm_ml_mm.apis import fill_blanks, load_model
    from trm_ml_mm.labels import write_table
    from trm_ml_mm.labels.table import CELLS
    console = Console()
    loaded = load_model(args.checkpoint, args.config, weights=args.weights)
    source = read_source(args, loaded)
    table = source.table
    logits, validation = judge(args, loaded, source, console)
    filled = fill_blanks(
        table.labels, logits, table.classes, validation,
        (args.precision[0], args.precision[-1]), args.guarantee)
    print_report(console, args, source, filled)
    files = [args.out, beside(args.out, 'probabilities')]
    write_table(files[0], replace(table, labels=filled.labels))
    write_rows(files[1], ['image', *table.classes], (
        [image, *('' if p != p else f'{p:.6f}' for p in row)]
        for image, row in zip(table.images, filled.probabilities.tolist())))
    questions = []
    for name, found in listed(args, table, filled.probabilities):
        files.append(beside(args.out, name))
        write_rows(files[-1], ['image', 'class', 'label', 'probability'], (
            [table.images[i], table.classes[c], CELLS[table.labels[i, c]],
             f'{filled.probabilities[i, c]:.6f}'] for i, c in found.tolist()))
        questions += [(table.images[i], table.classes[c])
                      for i, c in found.tolist()]
    files += export(args, table, filled.probabilities, questions)
    for path in files:
        console.print(f'Written: {path}', soft_wrap=True, markup=False,
                      highlight=False)


def read_source(args: argparse.Namespace, loaded):
    """The table or the config, as a table to train on."""
    from trm_ml_mm.apis.tables import from_config, from_table
    if is_config(args.table):
        return from_config(args.table, loaded.description.classes,
                           args.cfg_options)
    return from_table(args.table, args.images, loaded, columns_of(args),
                      args.calibrate_on, args.cfg_options)


def judge(args: argparse.Namespace, loaded, source, console):
    """Logits of the table's images, and of the validation set with its
    labels (None: there is none)."""
    from rich.progress import Progress

    from trm_ml_mm.apis import Evidence, checkpoint_logits, cross_fit
    scales = None if args.tta is None else args.tta or (1., )
    tasks = {}
    with Progress(console=console, transient=True,
                  disable=not console.is_terminal) as bar, (
            tempfile.TemporaryDirectory() if args.features is None else
            nullcontext(args.features)) as features:
        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        options = dict(scales=scales, workers=args.workers, progress=progress)
        if args.unseen:
            found = checkpoint_logits(loaded.model.to(device_of(args)),
                                      source.cfg, **options)
        else:
            found = cross_fit(source.cfg, features, args.folds, args.seed,
                              **options)
    validation = None if source.validation is None else Evidence(
        found.validation, source.validation)
    return found.train, validation


def device_of(args: argparse.Namespace) -> str:
    import torch
    return args.device or ('cuda' if torch.cuda.is_available() else 'cpu')


def print_report(console, args: argparse.Namespace, source, filled) -> None:
    """Say what was filled in, how sure that is, and what it rests on."""
    import numpy as np
    from rich.markup import escape
    from rich.table import Column, Table

    from trm_ml_mm.apis import report
    table = source.table
    rows = report(table.labels, filled, table.classes)
    shown = Table(Column('class', no_wrap=True), *(
        Column(name, justify='right') for name in (
            'known', 'present', '%', 'absent', '%', 'blank')),
        title='Labels that are filled in (%: estimated precision)')
    for row in rows:
        shown.add_row(escape(row.name), *(
            '-' if value != value else f'{100 * value:.1f}'
            if isinstance(value, float) else str(value) for value in row[1:]),
            end_section=row is rows[-2])
    console.print(shown)
    say = partial(console.print, soft_wrap=True, markup=False,
                  highlight=False)
    total = rows[-1]
    count = total.present + total.absent
    unknown = count + total.blank
    if not unknown:
        say('Every label is known: there is nothing to fill in.')
        return
    say(f'{count} of {unknown} unknown labels are filled in '
        f'({100 * count / unknown:.1f}%).')
    say(f'Thresholds are from {evidence_in_words(source, filled)}. Of these,'
        f' {share(filled.present)} that would be filled in as present are so,'
        f' and {share(filled.absent)} as absent.')
    wanted = dict(present=args.precision[0], absent=args.precision[-1])
    if args.guarantee is not None:
        say('With a confidence of '
            f'{100 * args.guarantee:g}%, at least ' + ' and '.join(
                f'{100 * ratio:g}% of those filled in as {value}'
                for value, ratio in wanted.items()) + ' are right.')
    for problem in filled.problems:
        say(f'Known labels of the table do not look like a random sample: '
            f'{problem}')
    if filled.problems:
        say('The precision holds for a random sample only: ' + (
            'give labelled images whose labels are one, with --calibrate-on.'
            if filled.own_labels else 'so the labels of the validation set '
            'alone gave the thresholds.'))
    for value, number in (('present', total.present),
                          ('absent', total.absent)):
        if not number:
            say(f'No label is filled in as {value}: known labels are too few, '
                f'or the model too weak, to show a precision of '
                f'{100 * wanted[value]:g}%. Give more labels with '
                '--calibrate-on, or a lower --precision' + (
                    '.' if args.guarantee is None else ', or no --guarantee.'))
    unread = [image for image, row in zip(
        table.images, np.isnan(filled.probabilities)) if row.all()]
    for image in unread[:SHOWN]:
        say(f'{image} cannot be read: its labels stay as they are.')
    if len(unread) > SHOWN:
        say(f'... and {len(unread) - SHOWN} more images.')


def share(numbers: Tuple[int, int]) -> str:
    return f'{numbers[1]} of {numbers[0]}'


def evidence_in_words(source, filled) -> str:
    """Which labels gave the thresholds."""
    from trm_ml_mm.labels import UNKNOWN
    found = [(source.table.labels, 'the table')] * filled.own_labels
    if source.validation is not None:
        found.append((source.validation, 'the validation set'))
    return ' and '.join(f'{(labels != UNKNOWN).sum()} known labels of {where}'
                        for labels, where in found)


def listed(args: argparse.Namespace, table, probabilities):
    """Name of the list, and (image, class) of its labels, for each list that
    was asked for."""
    from trm_ml_mm.evaluation import rank_questions, suspicious_labels
    if args.ask is not None:
        yield 'questions', rank_questions(
            table.labels, probabilities, args.strategy, args.seed)[:args.ask]
    if args.suspicious is not None:
        yield 'suspicious', suspicious_labels(
            table.labels, probabilities)[:args.suspicious]


def export(args: argparse.Namespace, table, probabilities,
           questions: Sequence[Tuple[str, str]]) -> List[str]:
    """Write the questions for an annotation tool; the paths of its files."""
    if not args.export:
        return []
    from trm_ml_mm.annotation import FORMATS
    tool, path = args.export
    options = {} if args.image_url is None else dict(image_url=args.image_url)
    return list(map(str, FORMATS[tool].export(
        table, path, questions, probabilities, **options)))


def import_answers(args: argparse.Namespace) -> None:
    """Write the answers of people into a copy of the table."""
    from trm_ml_mm.annotation import FORMATS, apply_answers
    from trm_ml_mm.labels import read_table, write_table
    kind = Path(args.answers).suffix.lower()
    tool = {'.json': TOOLS[0], '.xml': TOOLS[1], '.zip': TOOLS[1]}.get(kind)
    if tool is None:
        raise ValueError(f'--import {args.answers}: give an export of Label '
                         'Studio (.json), or of CVAT (.xml, .zip).')
    if is_config(args.table):
        from trm_ml_mm.apis.tables import from_config
        table = from_config(args.table, None, args.cfg_options).table
    else:
        classes = args.classes
        if classes and len(classes) == 1 and Path(classes[0]).is_file():
            classes = classes[0]
        table = read_table(args.table, classes, columns_of(args))
    answers = FORMATS[tool].read_answers(args.answers, table)
    done = apply_answers(table, answers, args.overwrite)
    write_table(args.out, done.table)
    print(f'{done.filled} labels filled in, {done.confirmed} confirmed, '
          f'{done.replaced} replaced, {done.undecided} left undecided.')
    for conflict in done.conflicts:
        print(conflict)
    print(f'Written: {args.out}')


def beside(out: str, name: str) -> str:
    """``filled.csv`` -> ``filled_<name>.csv``"""
    path = Path(out)
    return str(path.with_name(f'{path.stem}_{name}{path.suffix}'))


def write_rows(path: str, header: List[str], rows: Iterable[list]) -> None:
    """Write a CSV file."""
    with atomic_write(path) as fresh, open(
            fresh, 'w', encoding='utf-8', newline='') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(header)
        table.writerows(rows)
