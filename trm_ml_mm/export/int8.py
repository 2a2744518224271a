"""Eight-bit weights and activations, for ONNX Runtime."""
import tempfile
from pathlib import Path
from typing import Iterator, List

import numpy as np

# Layers that hold nearly all weights and time.
LAYERS = ('Conv', 'Gemm', 'MatMul')


def quantised(proto, inputs: Iterator[np.ndarray]):
    """An ``onnx.ModelProto`` whose backbone computes in 8 bits; the head stays
    in fp32.

    Post-training static quantisation by ONNX Runtime: each output channel of a
    weight has its own scale; the range of an activation is what it has on the
    given images.

    Args:
        proto: In fp32; keeps the exporter's notes, or its names of nodes, which
            say what belongs to the backbone.
        inputs: Of the file, one batch after the other.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):

        def get_next(self):
            image = next(inputs, None)
            return None if image is None else dict(image=image)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ('fp32.onnx', 'int8.onnx')]
        onnx.save(proto, str(paths[0]))
        quantize_static(
            str(paths[0]), str(paths[1]), Images(), per_channel=True,
            # Without special instructions, products of 8 bits overflow.
            reduce_range=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=backbone_layers(proto.graph))
        return onnx.load(str(paths[1]))


def backbone_layers(graph) -> List[str]:
    """Names of the layers with weights that belong to the backbone."""
    weights = {value.name for value in graph.initializer}
    return [node.name for node in graph.node if node.op_type in LAYERS
            and weights.intersection(node.input) and 'backbone' in scope(node)]


def scope(node) -> str:
    """The modules that a node comes from."""
    notes = {note.key: note.value for note in node.metadata_props}
    return notes.get('pkg.torch.onnx.name_scopes', node.name)
