"""ONNX files, and running them with ONNX Runtime."""
import io
import json
from pathlib import Path
from typing import Callable, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from .facts import KEY, missing, quiet
from .model import ExportedModel

# PyTorch's exporter by `torch.export` is its default since 2.9. Before, it
# cannot translate the operators of a ResNet.
BY_TORCH_EXPORT = tuple(
    int(part) for part in torch.__version__.split('.')[:2]) >= (2, 9)
OPSET = 18
LIMIT = 2**31  # bytes of one ONNX file, which is a protocol buffer


def check_installed() -> None:
    """Raise an error that says what to install, if something is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        if BY_TORCH_EXPORT:
            import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(missing(
            ['onnx', 'onnxscript', 'onnxruntime'])) from error


def write(module: ExportedModel, example: Tensor, path: Path, facts: str,
          edit: Optional[Callable] = None) -> None:
    """Write a model as an ONNX file.

    Args:
        module: The model.
        example: An input.
        path: Of the file.
        facts: Text to store in it.
        edit: Gets the ``onnx.ModelProto`` and gives another.

    Raises:
        ImportError: If a package is missing.
        ValueError: If the model is too large for one file.
    """
    check_installed()
    import onnx
    size = sum(value.numel() * value.element_size()
               for value in module.state_dict().values())
    if size >= LIMIT:
        raise ValueError(
            f'The model has {size / 1e9:.1f} GB, and one ONNX file holds 2: '
            'export it with --format torch_export, or with --fp16.')
    with quiet():
        proto = _translated(module, example)
        if edit is not None:
            proto = edit(proto)
    _forget_sources(proto.graph)
    onnx.helper.set_model_props(proto, {KEY: facts})
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _translated(module: ExportedModel, example: Tensor):
    """The ``onnx.ModelProto`` of a model."""
    import onnx
    options = dict(input_names=['image'], output_names=list(module.outputs),
                   opset_version=OPSET)
    if BY_TORCH_EXPORT:
        return torch.onnx.export(
            module, (example, ), dynamo=True, verbose=False,
            dynamic_shapes=dict(image=module.dynamic_shape()),
            **options).model_proto
    content = io.BytesIO()
    torch.onnx.export(
        module, (example, ), content, dynamo=False,
        dynamic_axes=dict(image=module.dynamic_axes(), **{
            name: {0: 'batch'} for name in module.outputs}), **options)
    return onnx.load_from_string(content.getvalue())


def _forget_sources(graph) -> None:
    """Remove the notes of the exporter: paths and lines of this machine."""
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info,
                 *graph.input, *graph.output):
        part.doc_string = ''
        del part.metadata_props[:]


def read(path: Path) -> Tuple[Callable[[np.ndarray], List[np.ndarray]], dict]:
    """A file as a function from an input to its outputs, and its facts. As
    many threads as PyTorch's."""
    check_installed()
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider'])
    facts = session.get_modelmeta().custom_metadata_map[KEY]
    return lambda image: session.run(None, dict(image=image)), json.loads(
        facts)
