"""Write a trained model as a file to hand over, with a model card."""
import hashlib
import io
from pathlib import Path
from typing import NamedTuple, Optional, Union

import jinja2
import torch
from mmengine.config import Config

from trm_ml_mm.engine import read_calibration
from trm_ml_mm.engine.baking import bake_text
from trm_ml_mm.engine.description import KEY
from trm_ml_mm.evaluation import Calibration, read_record
from trm_ml_mm.evaluation.run_record import title
from trm_ml_mm.utils.configs import nested_dicts
from trm_ml_mm.utils.io import atomic_write, write_text
from trm_ml_mm.version import __version__

from .inferencer import THRESHOLD
from .model import load_model, tower_of

CARD = 'README.md'
# As published beside the weights: the start of a tag, the longer one first.
APPLE = 'Apple Machine Learning Research Model (research only)'
TOWER_LICENCES = {'openai': 'MIT', 'laion': 'MIT', 'datacompdr': APPLE,
                  'dfn': APPLE, 'datacomp': 'MIT', 'merged2b': 'MIT',
                  'webli': 'Apache-2.0'}
METRICS = ('mAP', 'CF1', 'OF1')
# What a release keeps of a checkpoint's meta.
KEPT = ('dataset_meta', 'known_labels', 'calibration', KEY, 'epoch')


class Release(NamedTuple):
    """What was written."""

    file: Path
    card: Path
    sha256: str


def publish_model(checkpoint: Union[str, Path],
                  out: Union[str, Path],
                  name: Optional[str] = None,
                  config: Union[None, str, Config] = None,
                  weights: Optional[str] = None,
                  bake: bool = False,
                  licence: Optional[str] = None) -> Release:
    """Write a release: the model without the state of its training.

    Args:
        checkpoint: File of a training run.
        out: Folder. The file is ``<name>-<first 8 digits of its hash>.pth``,
            and a model card stands beside it.
        name: Default: the name of the checkpoint's folder.
        config: See :func:`~trm_ml_mm.apis.load_model`.
        weights: See :func:`~trm_ml_mm.apis.load_model`.
        bake: Store the text features, so that no text tower is needed.
        licence: Of the file, for the card.

    Raises:
        FileExistsError: If the folder has a model card already.
        ValueError, FileNotFoundError: See :func:`~trm_ml_mm.apis.load_model`.
    """
    loaded = load_model(checkpoint, config, weights=weights)
    out = Path(out)
    if (out / CARD).exists():
        raise FileExistsError(
            f'{out / CARD} exists already: give a new folder.')
    name = name or Path(checkpoint).resolve().parent.name
    state = {key: value.cpu() for key, value in
             loaded.model.state_dict().items()}
    described = loaded.description
    if bake:
        described, state = bake_text(loaded.model, described, state)
    meta = {key: value for key, value in loaded.meta.items() if key in KEPT}
    meta[KEY] = without_folders(described.to_plain())
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), buffer)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    file = out / f'{name}-{sha256[:8]}.pth'
    card = render_card(loaded, name, file.name, len(content), sha256, bake,
                       licence, Path(checkpoint).parent)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, len(content)) as fresh:
        fresh.write_bytes(content)
    write_text(out / CARD, card)
    return Release(file, out / CARD, sha256)


def without_folders(plain: dict) -> dict:
    """A description without the folders of this machine: a file of weights is
    looked for beside the checkpoint."""
    for options in nested_dicts(plain):
        if 'arch' in options and options.get('weights'):
            options['weights'] = Path(options['weights']).name
    return plain


def render_card(loaded, name: str, file: str, size: int, sha256: str,
                baked: bool, licence: Optional[str], work_dir: Path) -> str:
    """The model card, Markdown."""
    about, model = loaded.description, without_folders(
        loaded.description.to_plain())['model']
    record = read_record(work_dir)
    known = loaded.meta.get('known_labels')
    count = len(about.classes)
    statistics = getattr(loaded.model.head, 'label_statistics', None)
    counts = [[0] * count] * 2 if statistics is None else [
        statistics.positives.tolist(), statistics.negatives.tolist()]
    calibration = read_calibration(loaded.meta, 'the checkpoint',
                                   about.classes)
    cuts = [THRESHOLD] * count if calibration is None else calibration.cuts
    return _environment().get_template('model_card.md.j2').render(
        name=name, file=file, size=size, sha256=sha256, baked=baked,
        licence=licence, version=__version__,
        head=type(loaded.model.head).__name__,
        tower=tower_of(model), tower_licence=_tower_licence(model),
        pipeline=', '.join(_step(step) for step in about.pipeline)
        or 'images as they are',
        labels=_labels(known, counts),
        scores=about_scores(calibration),
        metrics=METRICS,
        rows=[] if record is None else [dict(
            title=title(row, record.head), split=row.split,
            percent=[_percent(row.metrics.get(m)) for m in METRICS])
            for row in record.rows],
        classes=[dict(name=_cell(n), words=_cell(w), positives=p, negatives=a,
                      threshold='never' if t is None else f'{t:.3f}')
                 for n, w, p, a, t in zip(about.classes, about.words, *counts,
                                          cuts)])


def about_scores(calibration: Optional[Calibration]) -> str:
    """What scores mean, for the card."""
    if calibration is None:
        return ('Scores rank images and labels. They are no probabilities, and '
                'the threshold .5 is no better than others: the model was not '
                'calibrated.')
    wanted = 'the best F1 of each class' if calibration.target is None else (
        f'a {calibration.criterion} of {calibration.target:g}, at the '
        f'confidence {calibration.confidence:g}')
    return ' '.join([
        f'Scores are probabilities. Thresholds are for {wanted}. Both were '
        f'calibrated on {calibration.source}. The expected calibration error '
        f'is {100 * calibration.error_after:.2f}% (of the sigmoids of logits '
        f'{100 * calibration.error_before:.2f}%).', *calibration.problems])


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader('trm_ml_mm.apis'), trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True)


def _tower_licence(model: dict) -> Optional[str]:
    for options in nested_dicts(model):
        if str(options.get('arch', '')).startswith('mini'):
            return 'Apache-2.0 (part of trm_ml_mm)'
        for tag, licence in TOWER_LICENCES.items():
            if str(options.get('weights') or '').startswith(tag):
                return licence
    return None


def _step(step: dict) -> str:
    size = step.get('scale', step.get('crop_size', step.get('scale_factor')))
    size = ' x '.join(map(str, size)) if isinstance(size, list) else size
    return f'{step["type"]} {size}'


def _labels(known: Optional[dict], counts) -> str:
    total = sum(map(sum, counts))
    rule = 'all that the set has' if known is None or (
        known.get('known') == 'all') else f'known={known["known"]}'
    return f'{rule}; {total:,} known labels ({sum(counts[0]):,} positive)'


def _percent(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f}'


def _cell(text: str) -> str:
    return text.replace('|', '\\|')
