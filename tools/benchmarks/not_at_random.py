"""Labels that are missing at random, and labels that are not: what methods make
of the unknown ones.
python tools/benchmarks/not_at_random.py --out work_dirs/not_at_random

On the built-in set, two masks know the same number of labels. One is drawn at
random. For the other, zero-shot CLIP proposes labels and a person verifies
them. Tables say what each mask knows, and what each method reaches on the fully
labelled test split. An interrupted benchmark continues when the same command
is given again.
"""
import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.runner import find_latest_checkpoint

from trm_ml_mm.apis import label_prior, zero_shot_training_scores
from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.datasets import label_matrix
from trm_ml_mm.datasets.scenes.rendering import object_mask, visible_fractions
from trm_ml_mm.datasets.scenes.world import MIN_VISIBLE, compose_scene
from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.experiments.plan import parse_options, plan
from trm_ml_mm.experiments.report import difference_table
from trm_ml_mm.experiments.results import Results
from trm_ml_mm.experiments.run import cache_features, read_row, run_grid
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
WEAK = 'configs/baselines/zero_shot_global.py'
RANDOM, PROPOSED = 'missing at random', 'proposed by a weak model'
SIZES = ('small', 'medium', 'large')
VIEWS = 4  # augmented views per training image in the feature cache


class Head(NamedTuple):
    """The same head with each treatment of unknown labels."""

    ignore: str
    negative: str
    selective: str


HEADS = [Head('baselines/query_decoder_text',
              'unknown_labels/query_decoder_text_negative',
              'unknown_labels/query_decoder_text_selective'),
         Head('ablations/no_pseudo', 'unknown_labels/no_pseudo_negative',
              'unknown_labels/no_pseudo_selective'),
         Head('baselines/linear_probe', 'unknown_labels/linear_probe_negative',
              'unknown_labels/linear_probe_selective')]


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare treatments of unknown labels on two masks')
    parser.add_argument('--out', required=True, help='folder of all runs')
    parser.add_argument('--known', type=float, default=.1,
                        help='proportion of known labels')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--processes', type=int, help='runs at a time')
    return parse(parser)


def path_of(config):
    return str(ROOT / 'configs' / f'{config}.py')


def draw_masks(out, seeds, known):
    """{(setting, seed): what ``known`` is in the config of a run}. Scenes are
    those of the suite: seeds alternate between two sets."""
    settings = {}
    for seed in range(seeds):
        scene_set = SCENE_SETS[seed % 2]
        path = out / 'masks' / f'proposed_{known}_seed{seed}.npz'
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scores = zero_shot_training_scores(
                str(ROOT / WEAK), dict(scene_set=scene_set))
            save_mask(path, proposed_mask(scores, known, seed=seed),
                      f'proposed {known}', seed)
        settings[RANDOM, seed], settings[PROPOSED, seed] = known, str(path)
    return settings


def visible_areas(dataset):
    """Of each present label, the pixels of its largest object: ``(N, C)``."""
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


def mask_statistics(settings):
    """What each mask knows, in percent; means over seeds."""
    found = {RANDOM: [], PROPOSED: []}
    for (setting, seed), known in settings.items():
        cfg = load_config(path_of('trm_ml_scenes'), dict(
            scene_set=SCENE_SETS[seed % 2]))
        dataset = build_dataset(cfg).dataset
        present = label_matrix(dataset) == PRESENT
        mask = load_mask(known).mask if setting == PROPOSED else draw_mask(
            label_matrix(dataset), known, seed or None)
        areas = visible_areas(dataset)
        bounds = np.quantile(areas[present], [1 / 3, 2 / 3])
        third = np.digitize(areas, bounds)
        found[setting].append([
            mask.mean(), present[mask].mean(), mask[present].mean(),
            *(mask[present & (third == part)].mean() for part in range(3))])
    return [['mask (percent)', 'labels known', 'known ones that are present',
             'positives known', *(f'of {size} ones' for size in SIZES)],
            *([setting, *(f'{100 * value:.1f}'
                          for value in np.mean(rows, 0))]
              for setting, rows in found.items())]


def jobs_of(configs, settings):
    """{(setting, config): its runs}; every seed has its own mask."""
    found = {}
    for (setting, seed), known in settings.items():
        data = (f'scene_set={SCENE_SETS[seed % 2]}', )
        for config in configs:
            found.setdefault((setting, config), []).extend(
                plan([path_of(config)], [known], [seed], [data]))
    return found


def with_prior(job, ignored, out):
    """A run with the selective loss, whose prior is the mean prediction of the
    run that ignored unknown labels."""
    name = '_'.join([ignored.method, Path(str(ignored.known)).stem,
                     f'seed{ignored.seed}'])
    path = out / 'priors' / f'{name}.npy'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        prior = label_prior(find_latest_checkpoint(str(ignored.work_dir(out))),
                            ignored.config, parse_options(ignored.data))
        with atomic_write(path) as fresh, open(fresh, 'wb') as file:
            np.save(file, prior)
    return job._replace(variant=(f'model.head.loss.prior={path}', ))


def run_all(settings, out, processes):
    """Run everything; {(setting, config): its runs}."""
    first = ['trm_ml_scenes', *(name for head in HEADS
                                for name in (head.ignore, head.negative))]
    jobs = jobs_of(first, settings)
    selective = jobs_of([head.selective for head in HEADS], settings)

    def run(found):
        flat = [job for group in found.values() for job in group]
        cache_features(flat, out / 'features', VIEWS, OPTIONS)
        run_grid(flat, out, ROOT / 'tools/train.py', processes, OPTIONS,
                 out / 'features')

    run(jobs)
    for head in HEADS:
        for setting in (RANDOM, PROPOSED):
            selective[setting, head.selective] = [
                with_prior(job, ignored, out) for job, ignored in zip(
                    selective[setting, head.selective],
                    jobs[setting, head.ignore])]
    run(selective)
    return {**jobs, **selective}


@command
def main():
    args = parse_args()
    out = Path(args.out)
    settings = draw_masks(out, args.seeds, args.known)
    print(markdown(mask_statistics(settings)))
    jobs = run_all(settings, out, args.processes)
    rows = [dict(read_row(job, out), known=setting, method=method_of(job))
            for (setting, _), group in jobs.items() for job in group]
    order = [OURS, *(Path(name).stem for head in HEADS for name in head)]
    rows.sort(key=lambda row: order.index(row['method']))
    for metric in ('mAP', 'CF1'):
        print(f'{metric} on the test split (percent), {args.seeds} seeds\n')
        print(markdown(table(rows, metric)))
    print(f'mAP minus that of {OURS}, run by run\n')
    print(markdown(difference_table(Results.from_rows(rows), order[1:], OURS)))


if __name__ == '__main__':
    main()
