"""What calibration on partially labelled validation images changes on the
test split: python tools/benchmarks/calibration.py EPOCH_10.pth

A part of the labels of the validation split is known. Everything is chosen on
them, and judged by all labels of the test split, over several draws of the
known labels. The checkpoint is one of configs/trm_ml_scenes.py.
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
from trm_ml_mm.evaluation.probabilities import sigmoid
from trm_ml_mm.experiments.tables import markdown
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, known_label_mask


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


@command
def main():
    args = parse_args()
    loaded = load_model(args.checkpoint, device=args.device)
    val, test = (logits_of_config(loaded, args.config, split)
                 for split in ('val', 'test'))
    draws = []
    for seed in range(args.seeds):
        mask = known_label_mask(val.labels.shape, args.known, seed)
        draws.append(results_of(val, np.where(mask, val.labels, UNKNOWN),
                                test, args))
    print(f'{val.source}, {100 * args.known:g}% of the labels known, '
          f'{args.seeds} draws of them; judged on {test.source}\n')
    for table in tables(draws):
        print(markdown(table), end='\n\n')
    methods = [draw['method'] for draw in draws]
    print('probabilities:', ', '.join(
        f'{name} {methods.count(name)}x' for name in sorted(set(methods))))


if __name__ == '__main__':
    main()
