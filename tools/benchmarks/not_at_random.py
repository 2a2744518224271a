"""Labels that are missing at random, and labels that are not: what methods make
of the unknown ones.
python tools/benchmarks/not_at_random.py --out work_dirs/not_at_random

On the built-in set, two masks know the same number of labels. One is drawn at
random. For the other, zero-shot CLIP proposes labels and a person verifies
them. Tables say what each mask knows, and what each method reaches on the fully
labelled test split. An interrupted benchmark continues when the same command
is given again.

--choices does not touch the test split: it searches the options of the
selective loss on the validation split of a scene set of its own.
"""
import argparse
import itertools
import statistics
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np
from mmengine.runner import find_latest_checkpoint

from trm_ml_mm.apis import label_prior, zero_shot_training_scores
from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.datasets import label_matrix
from trm_ml_mm.datasets.scenes.rendering import object_mask, visible_fractions
from trm_ml_mm.datasets.scenes.world import MIN_VISIBLE, compose_scene
from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.experiments.plan import parse_options, plan, short_option
from trm_ml_mm.experiments.report import difference_table
from trm_ml_mm.experiments.results import Results
from trm_ml_mm.experiments.run import (
    cache_features,
    read_row,
    read_validation,
    run_grid,
)
from trm_ml_mm.experiments.suites import OPTIONS, OURS, SCENE_SETS, method_of
from trm_ml_mm.experiments.tables import markdown, table
from trm_ml_mm.labels import (
    PRESENT,
    draw_mask,
    load_mask,
    proposed_mask,
    save_mask,
)
from trm_ml_mm.utils.io import atomic_write

ROOT = Path(__file__).parents[2]
WEAK = 'baselines/zero_shot_global'
TRM_ML = ('trm_ml_scenes', 'unknown_labels/trm_ml_no_class_ratio')
RANDOM, PROPOSED = 'missing at random', 'proposed by a weak model'
SIZES = ('small', 'medium', 'large')
VIEWS = 4  # augmented views per training image in the feature cache
TUNING_SET, TUNING_SEED = 0, 10  # no result uses them
TOPS, THRESHOLDS = (1, 3, 5), (.2, .3)


class Head(NamedTuple):
    """Configs of one head with each treatment of unknown labels."""

    ignore: str
    negative: str
    selective: str


class Draw(NamedTuple):
    """One mask."""

    name: str  # RANDOM or PROPOSED
    seed: int
    scene_set: int
    known: Union[float, str]  # as the config of a run has it


HEADS = [Head(ignore, f'unknown_labels/{Path(ignore).name}_negative',
              f'unknown_labels/{Path(ignore).name}_selective')
         for ignore in ('baselines/query_decoder_text', 'ablations/no_pseudo',
                        'baselines/linear_probe')]


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare treatments of unknown labels on two masks')
    parser.add_argument('--out', required=True, help='folder of all runs')
    parser.add_argument('--known', type=float, default=.1,
                        help='proportion of known labels')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--processes', type=int, help='runs at a time')
    parser.add_argument('--choices', action='store_true')
    return parse(parser)


def path_of(config):
    return str(ROOT / 'configs' / f'{config}.py')


def options_of(scene_set):
    """Those of all runs on a scene set."""
    return parse_options([*OPTIONS, f'scene_set={scene_set}'])


def draw_masks(out, known, places):
    """Both masks for each (seed, scene set)."""
    draws = []
    for seed, scene_set in places:
        path = out / f'masks/proposed_{known}_set{scene_set}_seed{seed}.npz'
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scores = zero_shot_training_scores(
                path_of(WEAK), options_of(scene_set))
            save_mask(path, proposed_mask(scores, known, seed=seed),
                      f'proposed {known}', seed)
        draws += [Draw(RANDOM, seed, scene_set, known),
                  Draw(PROPOSED, seed, scene_set, str(path))]
    return draws


def visible_areas(dataset):
    """Of each present label, the visible pixels of its largest object:
    ``(N, C)``."""
    names = {name: c for c, name in enumerate(dataset.metainfo['classes'])}
    areas = np.zeros((len(dataset), len(names)))
    for i in range(len(dataset)):
        _, objects = compose_scene(dataset.scene_set, dataset.split, i,
                                   dataset.size)
        masks = [object_mask(one, dataset.size) for one in objects]
        for one, mask, ratio in zip(objects, masks, visible_fractions(masks)):
            if one.name in names and ratio >= MIN_VISIBLE:
                c = names[one.name]
                areas[i, c] = max(areas[i, c], (mask > 127).sum() * ratio)
    return areas


def mask_statistics(draws):
    """What each mask knows, in percent; means over draws."""
    found = {RANDOM: [], PROPOSED: []}
    for draw in draws:
        dataset = build_dataset(load_config(
            path_of('trm_ml_scenes'), options_of(draw.scene_set))).dataset
        labels = label_matrix(dataset)
        mask = load_mask(draw.known).mask if draw.name == PROPOSED else (
            draw_mask(labels, draw.known, draw.seed or None))
        present, areas = labels == PRESENT, visible_areas(dataset)
        third = np.digitize(areas, np.quantile(areas[present], [1 / 3, 2 / 3]))
        found[draw.name].append([
            mask.mean(), present[mask].mean(), mask[present].mean(),
            *(mask[present & (third == part)].mean() for part in range(3))])
    return [['mask (percent)', 'labels known', 'known ones that are present',
             'positives known', *(f'of {size} ones' for size in SIZES)],
            *([name, *(f'{100 * value:.1f}' for value in np.mean(rows, 0))]
              for name, rows in found.items())]


def jobs_of(config, draws):
    """A run for each mask."""
    return [plan([path_of(config)], [draw.known], [draw.seed],
                 [(f'scene_set={draw.scene_set}', )])[0] for draw in draws]


def with_prior(job, ignored, out, *options):
    """A run with the selective loss, whose prior is the mean prediction of the
    run that ignored unknown labels."""
    name = '_'.join([ignored.method, Path(str(ignored.known)).stem,
                     *ignored.data, f'seed{ignored.seed}'])
    path = out / 'priors' / f'{name}.npy'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        prior = label_prior(find_latest_checkpoint(str(ignored.work_dir(out))),
                            ignored.config,
                            parse_options([*OPTIONS, *ignored.data]))
        with atomic_write(path) as fresh, open(fresh, 'wb') as file:
            np.save(file, prior)
    return job._replace(variant=(f'model.head.loss.prior={path}', *options))


def run(jobs, args):
    """Train all jobs from cached features."""
    features = args.out / 'features'
    cache_features(jobs, features, VIEWS, OPTIONS)
    run_grid(jobs, args.out, ROOT / 'tools/train.py', args.processes, OPTIONS,
             features)


def search(args):
    """Validation mAP of each setting of the selective loss, beside those of
    the other two treatments: a table."""
    draws = draw_masks(args.out, args.known, [(TUNING_SEED, TUNING_SET)])
    settings = [(f'model.head.loss.top={top}',
                 f'model.head.loss.prior_threshold={threshold}')
                for top, threshold in itertools.product(TOPS, THRESHOLDS)]
    rows = {name: [] for name in ('ignore', 'negative', *settings)}
    for head in HEADS:
        ignored, negative, selective = (jobs_of(config, draws)
                                        for config in head)
        run([*ignored, *negative], args)
        rows['ignore'] += ignored
        rows['negative'] += negative
        for setting in settings:
            rows[setting] += [with_prior(job, first, args.out, *setting)
                              for job, first in zip(selective, ignored)]
    run([job for setting in settings for job in rows[setting]], args)
    lines = [['validation mAP (percent)', *(
        f'{Path(head.ignore).name}, {draw.name}' for head in HEADS
        for draw in draws), 'mean']]
    for name, jobs in rows.items():
        values = [read_validation(job, args.out) for job in jobs]
        title = name if isinstance(name, str) else ', '.join(
            ['selective', *map(short_option, name)])
        lines.append([title, *(f'{value:.2f}' for value in [
            *values, statistics.fmean(values)])])
    return lines


def compare(args):
    """Run everything that the tables need, and print them. Seeds alternate
    between the scene sets of the benchmark suite."""
    draws = draw_masks(args.out, args.known, [
        (seed, SCENE_SETS[seed % 2]) for seed in range(args.seeds)])
    print(markdown(mask_statistics(draws)))
    jobs = {config: jobs_of(config, draws) for config in [
        *TRM_ML, *(name for head in HEADS
                   for name in (head.ignore, head.negative))]}
    run([job for group in jobs.values() for job in group], args)
    for head in HEADS:
        jobs[head.selective] = [
            with_prior(job, ignored, args.out) for job, ignored in zip(
                jobs_of(head.selective, draws), jobs[head.ignore])]
    run([job for head in HEADS for job in jobs[head.selective]], args)
    order = [*TRM_ML, *(config for head in HEADS for config in head)]
    rows = [dict(read_row(job, args.out), known=draw.name,
                 method=method_of(job))
            for config in order for job, draw in zip(jobs[config], draws)]
    for metric in ('mAP', 'CF1'):
        print(f'{metric} on the test split (percent), {args.seeds} seeds:\n')
        print(markdown(table(rows, metric)))
    names = [OURS, *(Path(config).name for config in order[1:])]
    reference = names.pop(1)
    print(f'mAP minus that of {reference}, run by run:\n')
    print(markdown(difference_table(Results.from_rows(rows), names,
                                    reference)))


@command
def main():
    args = parse_args()
    args.out = Path(args.out)
    if args.choices:
        print(markdown(search(args)))
    else:
        compare(args)


if __name__ == '__main__':
    main()
