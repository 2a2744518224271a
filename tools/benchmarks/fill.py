"""Fill in, ask, find wrong labels: measured on the built-in set, whose hidden
labels are known. python tools/benchmarks/fill.py --fill --suspicious --ask
--loop --out work_dirs/fill

* --fill: precision of the labels that are filled in, and how many they are.
* --suspicious: known labels are flipped; how many of those listed are flipped.
* --ask: mAP after 500 answers, by the strategy that chose the questions.
* --loop: ask in Label Studio's files, answer, import, train, ask again.

Images are written as files, and labels as tables, as a user has them.
"""
import argparse
import copy
import hashlib
import itertools
import json
import statistics
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from rich.console import Console

from trm_ml_mm.annotation import FORMATS, apply_answers, safe_name
from trm_ml_mm.apis import (
    Evidence,
    Filled,
    UnseenLogits,
    cross_fit,
    fill_blanks,
)
from trm_ml_mm.apis.cross_fit import fill_views, fit, view_logits
from trm_ml_mm.cli.fill_labels import STRATEGIES
from trm_ml_mm.datasets import Scenes, label_matrix
from trm_ml_mm.datasets.scenes.world import draw
from trm_ml_mm.engine import load_config
from trm_ml_mm.evaluation import (
    average_precision,
    mean_over_classes,
    rank_questions,
    suspicious_labels,
)
from trm_ml_mm.experiments.tables import markdown
from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    LabelTable,
    known_label_mask,
    read_table,
    write_table,
)
from trm_ml_mm.utils.arrays import read_arrays
from trm_ml_mm.utils.io import atomic_write, write_text
from trm_ml_mm.visualization import Curve, draw_curves

CONFIG = str(Path(__file__).parents[2] / 'configs/trm_ml_scenes.py')
SIZES = dict(train=2000, val=1000, test=2000)
SCALES = (1., 1.25)  # of test-time augmentation
FLIPPED = .02  # of known labels
WANTED = ((.9, .95), (.95, .95), (.95, .99), (.98, .995))


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for part in ('fill', 'suspicious', 'ask', 'loop'):
        parser.add_argument(f'--{part}', action='store_true')
    parser.add_argument('--scene-sets', type=int, nargs='+', default=[0])
    parser.add_argument('--known', type=float, nargs='+', default=[.1, .3],
                        help='of --fill and --suspicious')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='of masks and trainings')
    parser.add_argument('--questions', type=int, default=500,
                        help='of --ask, and of a round of --loop')
    parser.add_argument('--rounds', type=int, default=4)
    parser.add_argument('--strategies', nargs='+', default=list(STRATEGIES))
    parser.add_argument('--class-ratio', type=float, default=0.,
                        help='of the prototypes; see configs/trm_ml_csv.py')
    parser.add_argument('--picture', help='where --loop draws its curves')
    parser.add_argument('--out', default='work_dirs/fill')
    return parser.parse_args()


class World:
    """A scene set as files: images, tables, features."""

    def __init__(self, scene_set: int, out: str, class_ratio: float = 0.):
        self.scene_set, self.class_ratio = scene_set, class_ratio
        self.folder = Path(out, f'scenes{scene_set}').absolute()
        self.truth: Dict[str, np.ndarray] = {}
        for split, count in SIZES.items():
            scenes = Scenes(split, count, scene_set, pipeline=[])
            self.classes = list(scenes.class_names)
            self.truth[split] = label_matrix(scenes).astype(np.int8)
            if not (self.folder / f'{split}.csv').is_file():
                self.write_images(scenes, split)
                write_table(self.folder / f'{split}.csv',
                            self.table(self.truth[split]))
        self.cfg = self.config('train.csv')
        self.caches = fill_views(self.cfg, self.folder / 'features', SCALES,
                                 splits=tuple(SIZES))

    def write_images(self, scenes: Scenes, split: str) -> None:
        import cv2
        (self.folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(len(scenes)):
            cv2.imwrite(str(self.folder / split / name_of(i)),
                        draw(scenes.get_data_info(i)['scene']))

    def table(self, labels: np.ndarray) -> LabelTable:
        return LabelTable([name_of(i) for i in range(len(labels))],
                          self.classes, labels)

    def config(self, table: str):
        """The package's config for scenes, on these files, with what
        configs/trm_ml_csv.py says of labels that are no random sample."""
        cfg = load_config(CONFIG, {
            'scene_set': self.scene_set,
            'model.head.prototypes.class_ratio': self.class_ratio})
        for split in SIZES:
            data = dict(
                type='trm_ml_mm.CSVMultiLabel', data_root=str(self.folder),
                data_prefix=split, ann_file=f'{split}.csv',
                pipeline=[dict(type='LoadImageFromFile'),
                          dict(type='PackInputs')])
            if split == 'train':
                data = dict(type='trm_ml_mm.PartialLabelDataset', known='all',
                            dataset=dict(data, ann_file=table))
            cfg[f'{split}_dataloader'].dataset = data
        return cfg

    def known(self, proportion: float, seed: int) -> np.ndarray:
        """Labels of the training set, the others unknown."""
        truth = self.truth['train']
        return np.where(known_label_mask(truth.shape, proportion, seed), truth,
                        UNKNOWN)

    def filled(self, labels: np.ndarray, seed: int = 0,
               precision: Tuple[float, float] = (.95, .95)) -> Filled:
        """As tools/fill_labels.py --tta 1 1.25 with the validation set."""
        return self.fill_from(labels, self.judged(labels, seed), precision)

    def judged(self, labels: np.ndarray, seed: int = 0) -> UnseenLogits:
        """By models that have not seen the image; kept in a file."""
        key = hashlib.sha256(labels.tobytes()).hexdigest()[:16]
        key += f'_{self.class_ratio:g}' if self.class_ratio else ''
        path = self.folder / f'judged_{key}_{seed}.npz'
        if path.is_file():
            return UnseenLogits(**read_arrays(path))
        write_table(self.folder / 'judged.csv', self.table(labels))
        found = cross_fit(self.config('judged.csv'), self.folder / 'features',
                          seed=seed, scales=SCALES)
        with atomic_write(path) as fresh, open(fresh, 'wb') as file:
            np.savez_compressed(file, **found._asdict())
        return found

    def fill_from(self, labels: np.ndarray, judged: UnseenLogits,
                  precision: Tuple[float, float], validated: bool = True,
                  guarantee: Optional[float] = None) -> Filled:
        validation = Evidence(judged.validation, self.truth['val'])
        return fill_blanks(labels, judged.train, self.classes,
                           validation if validated else None, precision,
                           guarantee)

    def test_after(self, labels: np.ndarray, seed: int = 0) -> float:
        """mAP on the test set after training on these labels, in percent."""
        write_table(self.folder / 'trained.csv', self.table(labels))
        cfg = copy.deepcopy(self.cfg)
        cfg.train_dataloader.dataset.dataset.ann_file = 'trained.csv'
        model, _ = fit(cfg, self.folder / 'features', seed)
        logits = view_logits(model, self.caches['test'][:1],
                             np.arange(SIZES['test']))
        return 100 * float(mean_over_classes(average_precision(
            torch.from_numpy(logits), torch.from_numpy(self.truth['test']))))


def name_of(index: int) -> str:
    return f'{index:05d}.png'


def measure_filling(worlds: Sequence[World], known: Sequence[float],
                    seed: int) -> List[List[str]]:
    """Precision against the hidden truth, and coverage."""
    lines = [['scene set', 'known', 'thresholds from', 'guarantee',
              'wanted: present', 'is', 'wanted: absent', 'is', 'filled in',
              'positives found']]
    for world, proportion in itertools.product(worlds, known):
        labels, truth = world.known(proportion, seed), world.truth['train']
        hidden = labels == UNKNOWN
        judged = world.judged(labels, seed)
        for validated, guarantee, wanted in itertools.product(
                (True, False), (None, .9), WANTED):
            filled = world.fill_from(labels, judged, wanted, validated,
                                     guarantee).labels
            right = []
            for value in (PRESENT, ABSENT):
                new = hidden & (filled == value)
                right.append(f'{100 * (truth[new] == value).mean():.2f}'
                             if new.any() else '-')
            found = hidden & (filled == PRESENT) & (truth == PRESENT)
            lines.append([
                str(world.scene_set), f'{proportion:.0%}',
                'table, validation' if validated else 'table',
                '-' if guarantee is None else f'{guarantee:.0%}',
                f'{100 * wanted[0]:g}', right[0],
                f'{100 * wanted[1]:g}', right[1],
                f'{(filled[hidden] != UNKNOWN).mean():.2%}',
                f'{found.sum() / (truth[hidden] == PRESENT).sum():.1%}'])
            print(' | '.join(lines[-1]), flush=True)
    return lines


def measure_suspicious(worlds: Sequence[World], known: Sequence[float],
                       seeds: Sequence[int]) -> List[List[str]]:
    """Precision of the list of known labels that are probably wrong."""
    lines = [['scene set', 'known', 'seed', 'flipped', 'precision at 100',
              'listed', 'precision', 'recall']]
    for world in worlds:
        for proportion in known:
            for seed in seeds:
                labels = world.known(proportion, seed)
                flipped = flip(labels, seed)
                wrong = flipped != labels
                found = suspicious_labels(
                    flipped, world.filled(flipped, seed).probabilities)
                hits = wrong[tuple(found.T)]
                lines.append([
                    str(world.scene_set), f'{proportion:.0%}', str(seed),
                    str(wrong.sum()), f'{hits[:100].sum() / 100:.2f}',
                    str(len(hits)), f'{hits.mean():.2f}',
                    f'{hits.sum() / wrong.sum():.2f}'])
                print(' | '.join(lines[-1]), flush=True)
    return lines


def flip(labels: np.ndarray, seed: int) -> np.ndarray:
    """Turn a few known labels into their contrary."""
    known = np.flatnonzero(labels != UNKNOWN)
    chosen = np.random.RandomState([7, seed]).choice(
        known, round(FLIPPED * len(known)), replace=False)
    flipped = labels.copy()
    flipped.flat[chosen] = np.where(labels.flat[chosen] == PRESENT, ABSENT,
                                    PRESENT)
    return flipped


def ask(world: World, labels: np.ndarray, strategy: str, count: int,
        seed: int) -> np.ndarray:
    """Image and class of each question, ``(count, 2)``."""
    probabilities = np.zeros(labels.shape)
    if strategy != 'random':
        probabilities = world.filled(labels, seed).probabilities
    return rank_questions(labels, probabilities, strategy, seed)[:count]


def answer(world: World, labels: np.ndarray, questions: np.ndarray
           ) -> np.ndarray:
    """The labels after these questions were answered by the truth, through
    the files of Label Studio."""
    table = world.table(labels)
    tasks = world.folder / 'tasks.json'
    FORMATS['labelstudio'].export(table, tasks, [
        (table.images[i], world.classes[c]) for i, c in questions.tolist()])
    export = world.folder / 'export.json'
    write_text(export, json.dumps(
        [annotated(task, world) for task in json.loads(tasks.read_text())]))
    done = apply_answers(table, FORMATS['labelstudio'].read_answers(
        export, table))
    if done.filled != len(questions) or done.conflicts:
        raise RuntimeError(f'{done.filled} of {len(questions)} answers came '
                           f'back, with {len(done.conflicts)} conflicts.')
    path = world.folder / 'answered.csv'
    write_table(path, done.table)
    return read_table(path, world.classes).labels


def annotated(task: dict, world: World) -> dict:
    """A task of Label Studio as it comes back from a person who knows the
    truth."""
    row = int(Path(task['data']['table_image']).stem)
    names = {safe_name(name): c for c, name in enumerate(world.classes)}
    asked = next(result['value']['choices'] for result in
                 task['predictions'][0]['result']
                 if result['from_name'] == 'asked')
    results = []
    for name in asked:
        value = world.truth['train'][row, names[name]]
        word = 'present' if value == PRESENT else 'absent'
        results.append(dict(from_name=f'class_{name}', to_name='image',
                            type='choices', value=dict(choices=[word])))
    return dict(data=task['data'], annotations=[
        dict(was_cancelled=False, result=results)])


def measure_rounds(worlds: Sequence[World], args) -> List[List[str]]:
    """mAP on the test set against the number of answers, by strategy."""
    rounds = args.rounds if args.loop else 1
    lines = [['scene set', 'seed', 'strategy', 'answers', 'of them present',
              'mAP']]
    for world in worlds:
        for seed in args.seeds:
            start = world.known(.1, seed)
            before = world.test_after(start, seed)
            for strategy in args.strategies:
                labels, points = start, [(0, 0, before)]
                for number in range(1, rounds + 1):
                    labels = answer(world, labels, ask(
                        world, labels, strategy, args.questions,
                        100 * number + seed))
                    new = labels[start == UNKNOWN]
                    points.append(((new != UNKNOWN).sum(),
                                   (new == PRESENT).sum(),
                                   world.test_after(labels, seed)))
                for answers, present, value in points:
                    lines.append([str(world.scene_set), str(seed), strategy,
                                  str(answers), str(present), f'{value:.2f}'])
                    print(' | '.join(lines[-1]), flush=True)
    return lines


def summary(lines: Sequence[Sequence[str]], strategies: Sequence[str]
            ) -> Tuple[List[List[str]], List[Curve]]:
    """Mean and deviation over scene sets and seeds: a table, and curves."""
    found: Dict[str, Dict[int, List[float]]] = {s: {} for s in strategies}
    for _, _, strategy, answers, _, value in lines[1:]:
        found[strategy].setdefault(int(answers), []).append(float(value))
    counts = sorted(next(iter(found.values())))
    table = [['answers', *strategies]]
    for count in counts:
        table.append([str(count), *(spread(found[s][count])
                                    for s in strategies)])
    curves = [Curve(s, counts, [statistics.fmean(found[s][c]) for c in counts],
                    [statistics.pstdev(found[s][c]) for c in counts])
              for s in strategies]
    return table, curves


def spread(values: Sequence[float]) -> str:
    return f'{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}'


def gains(lines: Sequence[Sequence[str]], strategies: Sequence[str]
          ) -> Optional[List[List[str]]]:
    """How much more than random questions the others raise mAP after the
    first round, seed by seed."""
    if 'random' not in strategies:
        return None
    first = {}
    for scene_set, seed, strategy, answers, _, value in lines[1:]:
        if answers != '0':
            first.setdefault((scene_set, seed, strategy), float(value))
    runs = sorted({key[:2] for key in first})
    table = [['strategy', *(f'set {s}, seed {n}' for s, n in runs), 'mean']]
    for strategy in strategies:
        more = [first[(*run, strategy)] - first[(*run, 'random')]
                for run in runs]
        table.append([strategy, *(f'{m:+.2f}' for m in more),
                      f'{statistics.fmean(more):+.2f}'])
    return table


def main():
    args = parse_args()
    console = Console(width=100)
    worlds = [World(scene_set, args.out, args.class_ratio)
              for scene_set in args.scene_sets]
    tables = {}
    if args.fill:
        tables['Filled in'] = measure_filling(worlds, args.known,
                                              args.seeds[0])
    if args.suspicious:
        tables['Suspicious labels'] = measure_suspicious(
            worlds, args.known, args.seeds)
    if args.ask or args.loop:
        lines = measure_rounds(worlds, args)
        tables['Questions, all runs'] = lines
        tables['Questions, mAP'], curves = summary(lines, args.strategies)
        tables['Questions, mAP more than at random, first round'] = gains(
            lines, args.strategies)
        if args.picture:
            draw_curves(curves, Path(args.picture), 'labels asked for',
                        'mAP on the test set (%)')
    for title, lines in tables.items():
        if lines:
            console.print(f'\n{title}\n')
            print(markdown(lines), flush=True)


if __name__ == '__main__':
    main()
