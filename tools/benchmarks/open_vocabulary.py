"""Classes that a model was not trained on, recognised by their words:
python tools/benchmarks/open_vocabulary.py work_dirs/trm_ml_scenes/epoch_10.pth

The checkpoint was trained on the first scene set. It is tested on another one,
whose classes are other pairs of the same properties and shapes: some of them
are known from the training, the others are new.
"""
import argparse

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from trm_ml_mm.apis import MultiLabelInferencer, load_model, with_classes
from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.datasets.scenes.world import draw, scene_labels
from trm_ml_mm.evaluation.functional import average_precision
from trm_ml_mm.labels import ABSENT, PRESENT
from trm_ml_mm.labels.names import scene_classes
from trm_ml_mm.models.heads.zero_shot import zero_shot_scores

SIZE = 96
BATCH = 100


def parse_args():
    parser = argparse.ArgumentParser(
        description='Recognise classes of another scene set by their words')
    parser.add_argument('checkpoints', nargs='+')
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--split', default='test', choices=['val', 'test'])
    parser.add_argument('--scene-set', type=int, default=1)
    return parse(parser)


@torch.no_grad()
def scores_of(predict, images, console):
    """Logits of the head, and CLIP's own scores before any training:
    ``(N, C)`` each."""
    found = []
    for batch in track(predict.preprocess(images, BATCH), 'Predicting',
                       -(-len(images) // BATCH), console=console,
                       transient=True):
        data = predict.model.data_preprocessor(
            dict(inputs=[entry['views'][0]['inputs'] for entry in batch]))
        feats = predict.model.extract_feat(data['inputs'])
        found.append((predict.model.head(feats),
                      zero_shot_scores(feats, 'dense')))
    return [torch.cat(part).cpu() for part in zip(*found)]


@command
def main():
    args = parse_args()
    console = Console()
    where = args.scene_set, args.split
    images = [draw((*where, i, SIZE)) for i in range(args.images)]
    names = scene_classes(args.scene_set)
    truth = torch.full((args.images, len(names)), float(ABSENT))
    for row, present in zip(truth, scene_labels(*where, args.images, SIZE)):
        row[list(present)] = float(PRESENT)
    table = Table('checkpoint', 'head', 'classes', 'number', 'mAP',
                  'zero-shot CLIP, dense',
                  title=f'Scene set {args.scene_set}, {args.images} scenes of '
                  f'{args.split}: mAP (percent)')
    for path in args.checkpoints:
        loaded = load_model(path)
        known = np.isin(names, loaded.description.classes)
        predict = MultiLabelInferencer(with_classes(loaded, names))
        results = [average_precision(scores, truth).numpy()
                   for scores in scores_of(predict, images, console)]
        for what, chosen in (('of the training', known), ('new', ~known)):
            table.add_row(
                path, type(loaded.model.head).__name__, what,
                str(chosen.sum()), *(f'{100 * result[chosen].mean():.2f}'
                                     for result in results))
    console.print(table)


if __name__ == '__main__':
    main()
