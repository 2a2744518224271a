"""Thresholds and probabilities of a trained model from labelled images."""
import argparse
from pathlib import Path
from typing import List, Optional, Sequence

from trm_ml_mm.utils.configs import SPLITS
from trm_ml_mm.utils.screen import track

from .arguments import (
    add_cfg_options,
    add_model,
    add_table_columns,
    columns_of,
    command,
    parse,
    setting,
)

GUARANTEE = ('With the confidence of {confidence:g}, each threshold has at '
             'least the {criterion} {target:g} on images of the same kind (a '
             'shared one: over its classes together), if known labels are a '
             'random sample of all labels.')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Choose a threshold for each class, and fit '
        'probabilities, on labelled images that the model was not trained '
        'on; labels may be unknown. The result is stored in the checkpoint.')
    parser.add_argument('checkpoint', help='checkpoint of a training')
    parser.add_argument(
        'data', help='config file or its name, or a CSV file of labels')
    parser.add_argument(
        '--split', choices=SPLITS, default='val', help='of the config')
    parser.add_argument(
        '--images', metavar='FOLDER',
        help='with a CSV file: the folder that its paths start from')
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        '--precision', type=float, metavar='P',
        help='guarantee this precision (default: the best F1 of each class)')
    wanted.add_argument(
        '--recall', type=float, metavar='R', help='guarantee this recall')
    parser.add_argument(
        '--confidence', type=float, default=.9, help='of the guarantee')
    parser.add_argument(
        '--minimum', type=float, metavar='N',
        help='known labels that a class needs for a threshold of its own; '
        'inf: all classes share one (default: it depends on what is wanted)')
    parser.add_argument(
        '--known', type=setting, metavar='RATIO',
        help='of a config: use only so many of its labels, as if the others '
        'were unknown')
    parser.add_argument(
        '--seed', type=int, help='with --known: draws the labels')
    parser.add_argument(
        '--out', metavar='FILE', help='write another checkpoint instead')
    parser.add_argument('--batch-size', type=int, default=32,
                        help='with a CSV file')
    parser.add_argument('--workers', type=int, default=0,
                        help='with a CSV file: processes that read images')
    add_table_columns(parser.add_argument_group('the columns of a CSV file'))
    add_cfg_options(parser)
    add_model(parser)
    return parse(parser, argv)


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    check_arguments(args)
    import torch
    from rich.console import Console

    from trm_ml_mm.apis import load_model, store_calibration
    from trm_ml_mm.evaluation import calibrate_logits, held_out_predictions
    console = Console()
    device = args.device or (
        'cuda' if torch.cuda.is_available() else 'cpu')
    loaded = load_model(args.checkpoint, args.config, device=device,
                        weights=args.weights)
    found = run_model(args, loaded, device)
    options = dict(classes=loaded.description.classes,
                   minimum=args.minimum, confidence=args.confidence,
                   source=found.source)
    for criterion in ('precision', 'recall'):
        if getattr(args, criterion) is not None:
            options.update(criterion=criterion,
                           target=getattr(args, criterion))
    calibration = calibrate_logits(found.logits, found.labels, **options)
    if args.split == 'train' and not is_table(args.data):
        calibration.problems.append('The model was trained on these images, '
                                    'and scores them higher than new ones.')
    try:
        predicted = held_out_predictions(found.logits, found.labels,
                                         **options)
    except ValueError:  # four fifths of the labels are too few
        predicted = None
    print_result(console, calibration, found, predicted)
    written = store_calibration(args.checkpoint, calibration, args.out)
    console.print(f'Stored in {written}', soft_wrap=True, markup=False)


def is_table(data: str) -> bool:
    return Path(data).suffix.lower() == '.csv'


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that would change nothing, or are out of range.

    Raises:
        ValueError: Names the option.
    """
    for name in ('precision', 'recall', 'confidence'):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1:
            raise ValueError(f'--{name} must be above 0 and below 1, got '
                             f'{value}.')
    if is_table(args.data):
        if args.images is None:
            raise ValueError(f'{args.data} needs --images, the folder that '
                             'its paths start from.')
        for name in ('known', 'seed', 'cfg_options'):
            if getattr(args, name) is not None:
                raise ValueError(
                    f'--{name.replace("_", "-")} changes a config, and '
                    f'{args.data} is a table: leave it out.')
    elif args.images is not None:
        raise ValueError(f'--images belongs to a CSV file, and {args.data} '
                         'is none: leave it out.')


def run_model(args: argparse.Namespace, loaded, device: str):
    """Logits and labels of all images."""
    from trm_ml_mm.apis import logits_of_config, logits_of_table

    def show(items, count):
        return track(items, 'Predicting', count)

    if is_table(args.data):
        return logits_of_table(
            loaded, args.data, args.images, columns_of(args),
            batch_size=args.batch_size, workers=args.workers, device=device,
            track=show)
    return logits_of_config(loaded, args.data, args.split, args.cfg_options,
                            args.known, args.seed, show)


def print_result(console, calibration, found, predicted) -> None:
    """Print what was found, and what it changes.

    Args:
        console: Of rich.
        calibration: The calibration.
        found: Logits and labels.
        predicted: ``(N, C)`` bool, of thresholds that were chosen on other
            images; None: there are too few.
    """
    console.print(f'{calibration.source}: '
                  f'{sum(calibration.positives):,} positive and '
                  f'{sum(calibration.negatives):,} negative known labels',
                  soft_wrap=True, markup=False)
    for sentence in found.unreadable:
        console.print(f'Left out: {sentence}', soft_wrap=True, markup=False)
    console.print(class_table(calibration, found, predicted))
    console.print(summary_table(calibration, found, predicted))
    for line in remarks(calibration, predicted):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def class_table(calibration, found, predicted):
    """One line for each class, as a table of rich."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from trm_ml_mm.evaluation.probabilities import sigmoid
    table = Table('class', box=box.SIMPLE, padding=(0, 1, 0, 0),
                  title='Known labels (+, -), threshold, and precision, recall '
                  'and F1\nin percent at .5 and at that threshold')
    for name in ('+', '-', 'threshold', 'P .5', 'P', 'R .5', 'R', 'F1 .5',
                 'F1'):
        table.add_column(name, justify='right')
    before = rates_of_classes(found.logits >= 0, found.labels)
    after = [('-', ) * 3] * len(before) if predicted is None else (
        rates_of_classes(predicted, found.labels))
    for row in zip(calibration.classes, calibration.positives,
                   calibration.negatives, calibration.thresholds, before,
                   after):
        name, positives, negatives, threshold, old, new = row
        mark = '*' if name in calibration.shared else ''
        table.add_row(
            escape(name), str(positives), str(negatives),
            'never' if threshold == float('inf') else
            f'{sigmoid(threshold):.3f}{mark or " "}',
            *(value for pair in zip(old, new) for value in pair))
    return table


def rates_of_classes(predicted, labels) -> List[tuple]:
    """Precision, recall and F1 of each class in percent; '-' where they are
    not defined."""
    from trm_ml_mm.labels import PRESENT, UNKNOWN
    positive, claimed = labels == PRESENT, predicted & (labels != UNKNOWN)
    rows = []
    for hits, claims, truths in zip((claimed & positive).sum(0),
                                    claimed.sum(0), positive.sum(0)):
        rows.append(tuple(
            f'{100 * hits / whole:.1f}' if whole else '-'
            for whole in (claims, truths, (claims + truths) / 2)))
    return rows


def summary_table(calibration, found, predicted):
    """All classes together, as a table of rich."""
    import torch
    from rich import box
    from rich.table import Table

    from trm_ml_mm.evaluation import precision_recall
    table = Table('', box=box.SIMPLE,
                  title='All classes (percent)')
    for name in ('CP', 'CR', 'CF1', 'OP', 'OR', 'OF1', 'ECE'):
        table.add_column(name, justify='right')
    labels = torch.from_numpy(found.labels)
    for name, chosen, error in (
            ('at .5', found.logits >= 0, calibration.error_before),
            ('calibrated', predicted, calibration.error_after)):
        rates = ['-'] * 6 if chosen is None else [
            f'{100 * float(value):.2f}' for value in precision_recall(
                torch.from_numpy(chosen), labels)[:6]]
        table.add_row(name, *rates, f'{100 * error:.2f}')
    return table


def remarks(calibration, predicted) -> List[str]:
    """What to know about a calibration, one sentence or two each."""
    from trm_ml_mm.evaluation.known_labels import named
    lines = [f'Probabilities: {calibration.probabilities.method}. '
             'Calibrated figures are of images that they were not chosen on.'
             if predicted is not None else
             'There are too few known labels to try thresholds on other '
             'images than those that they were chosen on.']
    chosen = {name: [one in getattr(calibration, name)
                     for one in calibration.classes]
              for name in ('shared', 'never_predicted')}
    if calibration.shared:
        lines.append(
            f'* {len(calibration.shared)} of {len(calibration.classes)} '
            'classes have too few known labels for their own, and share one '
            'threshold of their calibrated probabilities, which is another '
            f'score in each: {named(calibration.classes, chosen["shared"])}.')
    if calibration.never_predicted:
        lines.append(
            f'{len(calibration.never_predicted)} classes are never predicted, '
            f'because no threshold was shown to reach '
            f'{calibration.target or "an F1"}: '
            f'{named(calibration.classes, chosen["never_predicted"])}. '
            'More known labels would help, or a lower wanted '
            f'{calibration.criterion}.')
    if calibration.target is not None:
        lines.append(GUARANTEE.format(**calibration._asdict()))
    for problem in calibration.problems:
        lines.append(f'Warning: {problem}')
    if calibration.problems:
        lines.append(
            'Warning: known labels seem to be no random sample of all labels. '
            + ('The guarantee does not hold.' if calibration.target is not None
               else 'Thresholds and probabilities may be wrong.'))
    return lines
