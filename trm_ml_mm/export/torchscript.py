"""TorchScript files, and running them. PyTorch has deprecated the format."""
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
    """Write a model as a TorchScript file; see :func:`.onnx.write`."""
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(module, example, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={FACTS: facts})


def read(path: Path) -> Tuple[Callable[[np.ndarray], List[np.ndarray]], dict]:
    """A file as a function from an input to its outputs, and its facts. It
    runs the program in the file: open only your own."""
    extra = {FACTS: ''}
    with quiet():
        module = torch.jit.load(str(path), _extra_files=extra)

    # Its optimiser would compile anew for every shape.
    @torch.no_grad()
    @torch.jit.optimized_execution(False)
    def run(image: np.ndarray) -> List[np.ndarray]:
        return [value.numpy() for value in module(torch.from_numpy(image))]

    return run, json.loads(extra[FACTS])
