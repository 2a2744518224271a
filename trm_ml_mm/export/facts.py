"""What a file says about itself: JSON, stored inside it."""
import json
import logging
import warnings
from contextlib import contextmanager
from typing import Iterator, Sequence

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.version import __version__

from .model import ExportedModel

# Its name in the metadata of ONNX; with .json, in PyTorch's archives.
KEY = 'trm_ml_mm'
NEVER = 2.  # a threshold that no score reaches
PRECISIONS = ('fp32', 'fp16', 'int8')


def facts_of(predict: MultiLabelInferencer, module: ExportedModel,
             precision: str) -> dict:
    """Names, thresholds, and how inputs and outputs are to be read.

    Args:
        predict: Of the model.
        module: What is exported of it.
        precision: One of ``PRECISIONS``.
    """
    rule, found = module.rule, predict.loaded.description
    height, width = rule.size
    if module.preprocess:
        image = dict(
            dtype='uint8', channels='RGB', values='pixels, 0 to 255',
            size=None if rule.mode else [height, width])
    else:
        image = dict(
            dtype='float32', channels=rule.channels,
            values='(pixel - mean) / std', size=[height, width],
            mean=rule.mean, std=rule.std)
    return dict(
        version=1, written_by=f'trm_ml_mm {__version__}', precision=precision,
        classes=list(found.classes), words=list(found.words),
        thresholds=[NEVER if value is None else float(value)
                    for value in predict.thresholds],
        input=dict(name='image', shape='(B, 3, height, width)', **image),
        resizing=dict(
            where='inside' if module.preprocess and rule.mode else 'before',
            steps=found.pipeline),
        outputs=dict(
            scores='(B, C) probability of each class',
            logits='(B, C) before that',
            **({'maps': '(B, C, h, w) where each class was seen; sums to 1'}
               if 'maps' in module.outputs else {})))


def to_text(facts: dict) -> str:
    return json.dumps(facts, ensure_ascii=False)


def missing(packages: Sequence[str]) -> str:
    """What to do if these packages are not there."""
    return (f'This needs {" and ".join(packages)}, which is not installed: '
            'run `pip install "trm_ml_mm[export]"`.')


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of exporters, which are for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
