"""Files of ``torch.export``, and running them."""
import io
import json
from pathlib import Path
from typing import Callable, List, Tuple

import numpy as np
import torch
from torch import Tensor

from .facts import KEY, quiet
from .model import ExportedModel

FACTS = f'{KEY}.json'


def write(module: ExportedModel, example: Tensor, path: Path,
          facts: str) -> None:
    """Write a model as a ``.pt2`` file; see :func:`.onnx.write`."""
    content = io.BytesIO()
    with quiet():
        program = torch.export.export(
            module, (example, ), strict=False,
            dynamic_shapes=dict(image=module.dynamic_shape()))
        torch.export.save(program, content, extra_files={FACTS: facts})
    path.write_bytes(content.getbuffer())


def read(path: Path) -> Tuple[Callable[[np.ndarray], List[np.ndarray]], dict]:
    """A file as a function from an input to its outputs, and its facts."""
    extra = {FACTS: ''}
    with quiet():
        module = torch.export.load(io.BytesIO(path.read_bytes()),
                                   extra_files=extra).module()

    @torch.no_grad()
    def run(image: np.ndarray) -> List[np.ndarray]:
        return [value.numpy() for value in module(torch.from_numpy(image))]

    return run, json.loads(extra[FACTS])
