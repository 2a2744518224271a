"""Run a model over labelled images, and keep what its logits mean."""
from pathlib import Path
from typing import Callable, Iterable, List, NamedTuple, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from trm_ml_mm.engine import (
    build_dataset,
    fill_classes,
    load_config,
    update_meta,
)
from trm_ml_mm.engine.calibration import KEY
from trm_ml_mm.evaluation import Calibration
from trm_ml_mm.labels import ImageNames, TableColumns, read_table
from trm_ml_mm.models.heads.base import targets_of
from trm_ml_mm.models.tta import view_logits
from trm_ml_mm.utils.io import existing

from .inferencer import MultiLabelInferencer
from .model import LoadedModel

# Wraps an iterable of a number of batches, to show progress.
Track = Callable[[Iterable, int], Iterable]


class LabelledLogits(NamedTuple):
    """What a model says of labelled images."""

    logits: np.ndarray  # (N, C) float32
    labels: np.ndarray  # (N, C) int8 in {PRESENT, ABSENT, UNKNOWN}
    source: str  # the images, for people
    unreadable: List[str] = []  # sentences on images that were left out


def logits_of_config(loaded: LoadedModel,
                     config: Union[str, Config],
                     split: str = 'val',
                     options: Optional[dict] = None,
                     known: Union[None, float, str] = None,
                     seed: Optional[int] = None,
                     track: Track = lambda batches, count: batches
                     ) -> LabelledLogits:
    """Logits and labels of a split of a config.

    Args:
        loaded: The model.
        config: A config, or its file or name.
        split: 'train', 'val' or 'test'.
        options: See :func:`~trm_ml_mm.engine.load_config`.
        known: Hide labels: see
            :class:`~trm_ml_mm.datasets.PartialLabelDataset`. None: use all.
        seed: Of the labels that are hidden.
        track: Shows progress.

    Raises:
        ValueError: If the config has no such split, or other classes.
        FileNotFoundError: If a file is missing.
    """
    cfg = load_config(config, options)
    classes = loaded.description.classes
    fill_classes(cfg, split, classes)
    if known is not None and cfg.get(f'{split}_dataloader'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset = dict(type='trm_ml_mm.PartialLabelDataset',
                              known=known, seed=seed, dataset=loader.dataset)
    dataset = build_dataset(cfg, split)
    name = Path(cfg.filename or 'a config').name
    columns = matching_columns(dataset.metainfo['classes'], classes, name)
    options = cfg[f'{split}_dataloader']
    batches = DataLoader(dataset, options.get('batch_size', 1),
                         num_workers=options.get('num_workers', 0),
                         collate_fn=pseudo_collate)
    logits, labels = [], []
    with torch.no_grad():
        for batch in track(batches, len(batches)):
            samples = loaded.model.test_step(batch)
            logits.append(torch.stack(list(map(view_logits, samples))).cpu())
            labels.append(targets_of(samples, len(classes)).cpu())
    source = f'{len(dataset)} images of the {split} split of {name}'
    if known is not None:
        source += f', labels known: {known}'
    return LabelledLogits(
        torch.cat(logits).float().numpy(),
        torch.cat(labels)[:, columns].numpy().astype(np.int8), source)


def matching_columns(names, classes, where: str) -> List[int]:
    """For each class of a model, its column in a data set.

    Raises:
        ValueError: If the data set has other classes.
    """
    names, classes = list(names), list(classes)
    odd = sorted(set(names) ^ set(classes))
    if odd or len(names) != len(classes):
        side = 'the data set' if odd and odd[0] in names else 'the model'
        raise ValueError(
            f'{where} has other classes than the model: only {side} has '
            f'"{odd[0] if odd else ""}" ({len(odd)} differ). Calibrate on '
            'images with labels of the same classes.')
    return [names.index(name) for name in classes]


def logits_of_table(loaded: LoadedModel,
                    table: Union[str, Path],
                    images: Union[str, Path],
                    columns: Optional[TableColumns] = None,
                    batch_size: int = 32,
                    workers: int = 0,
                    device: Optional[str] = None,
                    track: Track = lambda results, count: results
                    ) -> LabelledLogits:
    """Logits and labels of the images of a table.

    Args:
        loaded: The model.
        table: See :func:`~trm_ml_mm.labels.read_table`.
        images: Folder that the paths in the table start from.
        columns: What the columns are called; None: the usual names.
        batch_size: Images that the model sees at once.
        workers: Processes that read images.
        device: Default: the GPU, if there is one.
        track: Shows progress.

    Raises:
        ValueError: If the table is wrong, or no image can be read.
        FileNotFoundError: If table, folder or an image is missing.
    """
    read = read_table(table, loaded.description.classes,
                      columns or TableColumns())
    folder = existing(images, 'Image folder',
                      'give the folder that the paths in the table start from')
    names = ImageNames(folder, must_exist=True)
    paths = [names.path(image, read.where(row))
             for row, image in enumerate(read.images)]
    predict = MultiLabelInferencer(loaded, device=device)
    logits, rows, unreadable = [], [], []
    for row, found in enumerate(track(
            predict.stream(paths, True, batch_size, skip_unreadable=True,
                           workers=workers), len(paths))):
        if isinstance(found, dict):
            unreadable.append(found['error'])
            continue
        logits.append(view_logits(found).float().numpy())
        rows.append(row)
    if not rows:
        raise ValueError(f'No image of {table} can be read. {unreadable[0]}')
    return LabelledLogits(
        np.stack(logits), read.labels[rows],
        f'{len(rows)} images of {Path(table).name}', unreadable)


def store_calibration(checkpoint: Union[str, Path], found: Calibration,
                      out: Union[None, str, Path] = None) -> Path:
    """Put a calibration into a checkpoint; all else in it stays.

    Args:
        checkpoint: The file.
        found: The calibration.
        out: Another file to write instead; None: the same one.

    Returns:
        The file that was written.

    Raises:
        FileNotFoundError, ValueError: If the checkpoint cannot be read.
        OSError: If the file cannot be written; the old one stays.
    """
    path = Path(checkpoint if out is None else out)
    update_meta(checkpoint, path, {KEY: found.to_dict()})
    return path
