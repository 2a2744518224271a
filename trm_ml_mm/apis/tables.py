"""From a table of labels to a config that trains on it."""
import copy
import os
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Union

import numpy as np
from mmengine.config import Config

from trm_ml_mm.datasets import find_masks, label_matrix, labels_of
from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.features.fill import resolve_dataset_config
from trm_ml_mm.labels import LabelTable, TableColumns, read_table
from trm_ml_mm.utils.package import package_config

from .model import LoadedModel

# How the package trains on tables: for a checkpoint without its config.
RECIPE = 'trm_ml_csv.py'
COLUMNS = TableColumns()


class TrainingTable(NamedTuple):
    """Labels with blanks, and how to train on them."""

    table: LabelTable  # its classes are those of the model, in their order
    cfg: Config  # whose training set has the same rows
    # Labels of the validation set of ``cfg``, (M, C); None: it has none.
    validation: Optional[np.ndarray]


def from_table(path: Union[str, Path],
               images: Union[str, Path],
               loaded: LoadedModel,
               columns: TableColumns = COLUMNS,
               validation: Union[None, str, Path] = None,
               options: Optional[dict] = None) -> TrainingTable:
    """Read a table, to train the model of a checkpoint on it.

    Args:
        path: CSV file; see :func:`~trm_ml_mm.labels.read_table`.
        images: Folder that the paths in it start from.
        loaded: Gives the classes, the architecture, and how images are
            prepared. How it is trained: by its config, if it was loaded with
            one, else as ``configs/trm_ml_csv.py`` says.
        columns: What the columns of the tables are called.
        validation: A table of labelled images that are not in the first one,
            in the same folder.
        options: Change the config; see :func:`~trm_ml_mm.engine.load_config`.

    Raises:
        FileNotFoundError: If a table or the folder is missing.
        ValueError: If a table cannot be read, or its columns are not the
            classes of the model; names the file and the line.
    """
    classes = loaded.description.classes
    table = read_table(path, classes, columns)
    if 'optim_wrapper' in loaded.cfg:
        cfg = load_config(loaded.cfg, options)
    else:
        cfg = load_config(Config(dict(
            Config.fromfile(package_config(RECIPE)).to_dict(),
            model=loaded.cfg.model)), options)
    pipeline = [dict(type='LoadImageFromFile'), *loaded.description.pipeline,
                dict(type='PackInputs')]

    def dataset(file):
        return dict(
            type='trm_ml_mm.CSVMultiLabel', ann_file=os.path.abspath(file),
            data_prefix=os.path.abspath(images), classes=list(classes),
            image_column=columns.image, positive_column=columns.positive,
            negative_column=columns.negative, separator=columns.separator,
            ignore_columns=list(columns.ignored), on_error='skip',
            pipeline=pipeline)

    cfg.train_dataloader.dataset = dict(
        type='trm_ml_mm.PartialLabelDataset', known='all',
        dataset=dataset(path))
    cfg.val_dataloader = cfg.test_dataloader = None
    labels = None
    if validation is not None:
        labels = read_table(validation, classes, columns).labels
        cfg.val_dataloader = dict(cfg.train_dataloader,
                                  dataset=dataset(validation))
    return TrainingTable(table, cfg, labels)


def from_config(config: Union[str, Config],
                classes: Optional[Sequence[str]] = None,
                options: Optional[dict] = None) -> TrainingTable:
    """The training set of a config as a table. Its validation set serves too.

    Args:
        config: See :func:`~trm_ml_mm.engine.load_config`.
        options: See :func:`~trm_ml_mm.engine.load_config`.
        classes: Of the model; None: not compared.

    Raises:
        ValueError: If the classes are others, or in another order.
    """
    cfg = load_config(config, options)
    dataset = unread(cfg, 'train')
    dataset = (find_masks(dataset) or [dataset])[0]  # under what repeats
    names = list(dataset.metainfo['classes'])
    if classes is not None and names != list(classes):
        raise ValueError(
            f'The training set of {cfg.filename} has other classes than the '
            f'model, or another order of them ({", ".join(names[:3])}, ... '
            f'and {", ".join(classes[:3])}, ...): give the config that the '
            'checkpoint was trained with.')
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    images = [os.path.relpath(path, root) if root else path for path in paths]
    table = LabelTable(images, names, labels_of(dataset),
                       source=str(cfg.filename))
    validation = None
    if cfg.get('val_dataloader'):
        validation = label_matrix(unread(cfg, 'val')).astype(np.int8)
    return TrainingTable(table, cfg, validation)


def unread(cfg: Config, split: str):
    """The data set of a split, which reads (or renders) no image."""
    cfg = copy.deepcopy(cfg)
    resolve_dataset_config(cfg, split).pipeline = []
    return build_dataset(cfg, split)
