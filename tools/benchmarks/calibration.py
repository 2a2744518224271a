"""What calibration on partially labelled validation images changes on the
test split: python tools/benchmarks/calibration.py EPOCH_10.pth

A part of the labels of the validation split is known. Everything is chosen on
them, and judged by all labels of the test split, over several draws of the
known labels. The draws share their images, so they err together. The
checkpoint is one of configs/trm_ml_scenes.py.

--choices does not touch the test split. It judges settings by the hidden labels
of the validation split: how much expected labels count for the best F1, and
the methods of probabilities.
"""
import argparse

import numpy as np
import torch

from trm_ml_mm.apis import load_model, logits_of_config
from trm_ml_mm.cli.arguments import command
from trm_ml_mm.evaluation import (
    best_f1_thresholds,
    calibration_error,
    fit_probabilities,
    precision_recall,
    precision_thresholds,
    recall_thresholds,
)
from trm_ml_mm.evaluation.probabilities import METHODS, sigmoid
from trm_ml_mm.experiments.tables import markdown
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, known_label_mask

PRIORS = (0., 30., 100., 300., 1000., 3000., 1e6)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('checkpoint')
    parser.add_argument('--config', default='trm_ml_scenes')
    parser.add_argument('--known', type=float, default=.3)
    parser.add_argument('--seeds', type=int, default=20,
                        help='draws of the known labels')
    parser.add_argument('--targets', type=float, nargs='+',
                        default=[.9, .95])
    parser.add_argument('--confidence', type=float, default=.9)
    parser.add_argument('--choices', action='store_true')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def f1_scores(logits, labels, predicted):
    """CF1 and OF1 in percent."""
    found = precision_recall(torch.from_numpy(predicted),
                             torch.from_numpy(labels))
    return 100 * float(found.CF1), 100 * float(found.OF1)


def reached(labels, predicted, value):
    """Precision and recall of all labels of a value together, in percent;
    a precision of NaN if there is none."""
    hits = (predicted & (labels == value)).sum()
    claims = (predicted & (labels != UNKNOWN)).sum()
    return (100 * hits / claims if claims else float('nan'),
            100 * hits / (labels == value).sum())


def results_of(val, labels, test, args):
    """Every figure of one draw of known labels, by its name."""
    fit = fit_probabilities(val.logits, labels)
    found = {}
    thresholds = best_f1_thresholds(val.logits, labels, fit).values
    for name, predicted in (('at .5', test.logits >= 0),
                            ('best F1', test.logits >= thresholds)):
        found[name] = f1_scores(test.logits, test.labels, predicted)
    for target in args.targets:
        for value in (PRESENT, ABSENT):
            cuts = precision_thresholds(
                val.logits, labels, target, args.confidence, value, fit)
            predicted = (test.logits >= cuts.values if value == PRESENT else
                         test.logits <= cuts.values)
            found['precision', value, target] = reached(
                test.labels, predicted, value)
        cuts = recall_thresholds(val.logits, labels, target, args.confidence,
                                 fit)
        found['recall', PRESENT, target] = reached(
            test.labels, test.logits >= cuts.values, PRESENT)
    found['ECE'] = [100 * calibration_error(p, test.labels) for p in (
        sigmoid(test.logits), fit.map.probabilities(test.logits))]
    found['method'] = fit.map.method
    return found


def spread(values):
    """Mean and standard deviation, as text."""
    return f'{np.nanmean(values):.2f} ± {np.nanstd(values):.2f}'


def tables(draws):
    """The tables of all draws, Markdown."""
    def column(name, index):
        return np.array([draw[name][index] for draw in draws])

    f1 = [['test split, all labels (percent)', 'CF1', 'OF1', 'ECE']]
    for index, name in enumerate(('at .5', 'best F1')):
        f1.append([name, spread(column(name, 0)), spread(column(name, 1)),
                   spread(column('ECE', index))])
    yield f1
    kept = [['wanted', 'reached', 'below it', 'more than 1 point below it',
             'recall', 'draws without a threshold']]
    for key in draws[0]:
        if not isinstance(key, tuple):
            continue
        criterion, value, target = key
        index = 0 if criterion == 'precision' else 1
        values = column(key, index)
        precise = column(key, 0)
        none = int(np.isnan(precise).sum())
        # A draw without a threshold claims nothing, and nothing wrong.
        values = np.where(np.isnan(precise), np.nan, values)
        kept.append([
            f'{criterion} of {"yes" if value == PRESENT else "no"} '
            f'{100 * target:g}', spread(values),
            f'{(values < 100 * target).sum()} of {len(draws)}',
            f'{(values < 100 * target - 1).sum()} of {len(draws)}',
            spread(column(key, 1)), str(none)])
    yield kept


def choices_of(val, labels):
    """CF1 and OF1 by the weight of expected labels, and held-out log loss by
    the method, of one draw of known labels."""
    fit = fit_probabilities(val.logits, labels)
    hidden = np.where(labels == UNKNOWN, val.labels, UNKNOWN)
    found = {prior: f1_scores(val.logits, hidden, val.logits
                              >= best_f1_thresholds(
                                  val.logits, labels, fit, prior=prior).values)
             for prior in PRIORS}
    return dict(found, **fit.log_loss)


def choice_tables(draws):
    """Means over draws, Markdown."""
    yield [['expected labels count as', 'CF1', 'OF1'], *(
        [f'{prior:g} known ones',
         spread(np.array([draw[prior][0] for draw in draws])),
         spread(np.array([draw[prior][1] for draw in draws]))]
        for prior in PRIORS)]
    yield [['probabilities', 'log loss'], *(
        [method, f'{np.mean([draw[method] for draw in draws]):.5f}']
        for method in METHODS)]


@command
def main():
    args = parse_args()
    loaded = load_model(args.checkpoint, device=args.device)
    val = logits_of_config(loaded, args.config, 'val')
    drawn = [np.where(known_label_mask(val.labels.shape, args.known, seed),
                      val.labels, UNKNOWN) for seed in range(args.seeds)]
    print(f'{val.source}, {100 * args.known:g}% of the labels known, '
          f'{args.seeds} draws of them')
    if args.choices:
        show(choice_tables([choices_of(val, labels) for labels in drawn]))
        return
    test = logits_of_config(loaded, args.config, 'test')
    draws = [results_of(val, labels, test, args) for labels in drawn]
    print(f'judged on {test.source}')
    show(tables(draws))
    methods = [draw['method'] for draw in draws]
    print('probabilities:', ', '.join(
        f'{name} {methods.count(name)}x' for name in sorted(set(methods))))


def show(tables):
    for table in tables:
        print(f'\n{markdown(table)}', end='')


if __name__ == '__main__':
    main()
