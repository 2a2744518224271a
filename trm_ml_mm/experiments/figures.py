"""The pictures of a report, from its runs."""
import csv
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence, Union

import torch
from mmengine.dataset import pseudo_collate

from trm_ml_mm.apis import load_model
from trm_ml_mm.engine import build_dataset
from trm_ml_mm.labels import PRESENT
from trm_ml_mm.visualization import (
    Curve,
    draw_curves,
    draw_maps,
    draw_points,
)

from .plan import Job, parse_options
from .results import QUALITY, Results, read_quality
from .suites import BASELINES, OURS, method_of
from .tables import mean_and_deviation, setting_name


class Picture(NamedTuple):
    """A picture file and its caption."""

    name: str
    text: str


def draw_all(jobs: Sequence[Job], out: Union[str, Path], results: Results,
             folder: Path) -> List[Picture]:
    """Draw every picture of the report into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    proportions = [k for k in results.settings if not isinstance(k, str)]
    lowest = proportions[0]
    at = f'{setting_name(lowest)} known'
    ours = [j for j in jobs if method_of(j) == OURS and j.known == lowest]
    pixel = [j for j in jobs if j.method == 'text_pixel' and j.known == lowest]
    pictures = []

    def add(name: str, text: str, draw: Callable[[Path], None]) -> None:
        draw(folder / name)
        pictures.append(Picture(name, text))

    add('results_proportions.png',
        'mAP on the test set against the proportion of known labels. Bars are '
        'one standard deviation over seeds.',
        lambda path: draw_curves(
            proportion_curves(results, proportions), path,
            'known labels (%)', 'mAP (%)', zoom=8.))
    add('results_pseudo_labels.png',
        f'Pseudo-labels at {at} against the hidden truth, epoch by epoch.',
        lambda path: draw_curves(quality_curves(ours, out), path, 'epoch',
                                 '%'))
    add('results_classes.png',
        f'AP of each class at {at}, TRM-ML minus text-pixel, against its '
        'number of test images. Each seed is a dot.',
        lambda path: draw_points(
            class_gains(ours, pixel, out), path, 'test images with the class',
            'gain in AP (points)'))
    add('results_saliency.jpg',
        'Where each method looks in one test scene: CLIP\'s attention pool '
        '(the whole image, the same for every category), text-pixel matching, '
        'text-region matching.',
        lambda path: draw_saliency(pixel[0], ours[0], out, path))
    return pictures


def proportion_curves(results: Results,
                      proportions: Sequence[float]) -> List[Curve]:
    """mAP against the proportion of known labels, a curve per method."""
    curves = []
    for method in (OURS, *reversed(BASELINES)):
        points = [mean_and_deviation(results.of[method, k])
                  for k in (*proportions, 'all')]
        curves.append(Curve(method, [100 * k for k in (*proportions, 1)],
                            [mean for mean, _ in points],
                            [deviation or 0 for _, deviation in points]))
    return curves


def quality_curves(jobs: Sequence[Job], out: Union[str, Path]
                   ) -> List[Curve]:
    """Precision and recall of pseudo-labels against the epoch."""
    histories = {
        (job.data, job.seed): {row['epoch']: row
                               for row in read_quality(job, out)}
        for job in jobs
    }
    epochs = [e for e in next(iter(histories.values())) if e > 1]
    curves = []
    for name in QUALITY:
        points = [mean_and_deviation({
            run: 100 * rows[e][name] for run, rows in histories.items()
        }) for e in epochs]
        curves.append(Curve(name.replace('_', ' '), epochs,
                            [mean for mean, _ in points],
                            [deviation or 0 for _, deviation in points]))
    return curves


def class_gains(ours: Sequence[Job], theirs: Sequence[Job],
                out: Union[str, Path]) -> List[tuple]:
    """(Positives, gain in AP) of every class, from pairs of runs."""
    gains = []
    for job in ours:
        other = next(j for j in theirs
                     if (j.data, j.seed) == (job.data, job.seed))
        own, their = read_classes(job, out), read_classes(other, out)
        gains += [(float(own[c]['positives']),
                   float(own[c]['AP']) - float(their[c]['AP']))
                  for c in own if own[c]['AP']]  # '' without a positive
    return gains


def read_classes(job: Job, out: Union[str, Path]) -> Dict[str, dict]:
    """AP and positives of each class on the test set."""
    path = sorted(job.work_dir(out).glob('*/per_class.csv'))[-1]
    with open(path, newline='', encoding='utf-8') as file:
        return {row['class']: row for row in csv.DictReader(file)}


@torch.no_grad()
def draw_saliency(pixel_job: Job, region_job: Job, out: Union[str, Path],
                  path: Path) -> None:
    """One test scene with four categories, and where three kinds of matching
    look for each."""
    (region, cfg, *_), (pixel, *_) = (
        _load_last(job, out) for job in (region_job, pixel_job))
    dataset = build_dataset(cfg, 'test')
    index = next(i for i in range(len(dataset))
                 if dataset.get_data_info(i)['gt_score'].sum() == 4)
    sample = dataset[index]
    score = dataset.get_data_info(index)['gt_score']
    present = (score == PRESENT).nonzero()[0].tolist()
    batch = region.data_preprocessor(pseudo_collate([sample]))
    feats = region.backbone(batch['inputs'])
    whole = region.backbone.image_attention(batch['inputs'])
    pixels = pixel.head.saliency(pixel.backbone(batch['inputs']))[0]
    regions = region.head.saliency(feats)[0]
    grid = feats.dense.shape[-2:]
    draw_maps(
        sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1],
        [dataset.metainfo['classes'][c] for c in present],
        {'the scene': None,
         'whole image': whole.expand(len(present), -1).unflatten(1, grid),
         'text-pixel': pixels[present].unflatten(1, grid),
         'text-region': regions[present].unflatten(1, grid)}, path)


def _load_last(job: Job, out: Union[str, Path]):
    """Model and config of a run's last checkpoint."""
    last = max(job.work_dir(out).glob('epoch_*.pth'),
               key=lambda p: int(p.stem.split('_')[1]))
    return load_model(str(last), job.config, parse_options(job.data))
