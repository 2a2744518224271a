"""Write a file, check it, keep it."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from trm_ml_mm.apis import LoadedModel, MultiLabelInferencer
from trm_ml_mm.datasets.images import ImageLike, find_images
from trm_ml_mm.datasets.scenes.world import draw
from trm_ml_mm.utils.checks import check_choice
from trm_ml_mm.utils.io import atomic_write

from . import check, int8, onnx, torch_export, torchscript
from .facts import PRECISIONS, facts_of, to_text
from .inputs import file_input, input_rule, resized
from .model import ExportedModel, in_full_precision

FORMATS = dict(onnx=onnx, torch_export=torch_export, torchscript=torchscript)
OWN_IMAGES = 14  # built-in scenes to check with, if no images are given


def export_model(loaded: LoadedModel,
                 path: Union[str, Path],
                 format: str = 'onnx',
                 maps: bool = False,
                 preprocess: bool = False,
                 precision: str = 'fp32',
                 check_images: Optional[Sequence[ImageLike]] = None,
                 calibrate_on: Optional[Sequence[ImageLike]] = None,
                 rounds: int = 5) -> check.Report:
    """Write a trained model as a file that needs nothing of this package.

    Args:
        loaded: Of :func:`~trm_ml_mm.apis.load_model`, on the CPU.
        path: Where the file goes.
        format: 'onnx', 'torch_export' or 'torchscript'.
        maps: Also give the saliency maps.
        preprocess: Take RGB images as they are, and resize and normalise them
            inside. (If the model's pipeline does more than resize, the file
            takes images of the model's size, and normalises.)
        precision: 'fp32'; 'fp16': the backbone in half precision; 'int8': the
            layers of the backbone in 8 bits, for ONNX.
        check_images: To compare the file with the model; None: built-in
            scenes.
        calibrate_on: Images that ranges of activations are taken from, for
            'int8'.
        rounds: Of the measured speed; 0: it is not measured.

    Raises:
        ImportError: If a package is missing.
        ValueError: If the model cannot be exported so, or the file does not
            agree with the model; then there is no file.
        OSError: If it cannot be written.
    """
    check_choice(FORMATS, format=format)
    check_choice(PRECISIONS, precision=precision)
    if (precision == 'int8') != (calibrate_on is not None):
        raise ValueError('int8 and images to calibrate it on belong together: '
                         'give both or neither.')
    if precision == 'int8' and format != 'onnx':
        raise ValueError(f'int8 is for ONNX files, not for {format}.')
    if format == 'onnx':
        onnx.check_installed()
    loaded = loaded._replace(model=in_full_precision(loaded.model))
    predict = MultiLabelInferencer(loaded, device='cpu')
    module = ExportedModel(loaded.model, input_rule(predict), maps, preprocess,
                           precision == 'fp16', predict.calibration)
    facts = to_text(facts_of(predict, module, precision))
    options = {}
    if precision == 'int8':
        images = find_images(calibrate_on)
        options['edit'] = lambda proto: int8.quantised(proto, (
            file_input(predict, resized(predict, part), preprocess)
            for part in check.chunks(images, 1)))
    images = scenes() if check_images is None else find_images(check_images)
    kind, path = FORMATS[format], Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with atomic_write(path) as fresh:
        # One fused operator, which no other runtime knows.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad():
                kind.write(module, module.example(2), fresh, facts, **options)
        except RuntimeError as error:
            raise ValueError(
                f'PyTorch cannot write this model as {format} '
                f'({type(error).__name__}: '
                f'{str(error).strip().splitlines()[0]}): take another format, '
                f'of {", ".join(FORMATS)}.') from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
        run, _ = kind.read(fresh)
        return examine(predict, module, run, images, precision, rounds,
                       fresh.stat().st_size)


def examine(predict: MultiLabelInferencer, module: ExportedModel, run,
            images: Sequence, precision: str, rounds: int, size: int
            ) -> check.Report:
    """Compare a file with its model.

    Raises:
        ValueError: If they do not agree.
    """
    found = check.differences(predict, run, images, module.outputs,
                              module.preprocess)
    limit = check.TOLERANCE if precision == 'fp32' else 1.
    if not found['scores'] <= limit:
        raise ValueError(
            f'The file does not agree with the model: a score differs by '
            f'{found["scores"]:.1e}, and {limit:.0e} is allowed. It was not '
            'kept.')
    resizes = module.preprocess and module.rule.mode is not None
    return check.Report(
        len(images), found,
        check.resizing_difference(predict, run, images) if resizes
        else float('nan'), size,
        check.speed(predict, run, images, module.preprocess, rounds)
        if rounds else [])


def open_file(path: Union[str, Path], format: str) -> Tuple[check.Run, dict]:
    """An exported file as a function from an input to its outputs, and what
    it says about itself. Open only files that you trust.

    Raises:
        FileNotFoundError, ValueError: If there is no such file or format.
    """
    check_choice(FORMATS, format=format)
    return FORMATS[format].read(Path(path))


def evaluate(loaded: LoadedModel, path: Union[str, Path], format: str, dataset
             ) -> Tuple[float, float]:
    """mAP of a model and of its exported file, in percent.

    Args:
        loaded: The model.
        path: The file.
        format: Its format, as in :func:`export`.
        dataset: A labelled set, which gives images of the model's size.

    Raises:
        ValueError: If its images have another size.
    """
    predict = MultiLabelInferencer(loaded, device='cpu')
    run, facts = open_file(path, format)
    size = input_rule(predict).size
    shape = tuple(dataset[0]['inputs'].shape[-2:])
    if shape != size:
        raise ValueError(
            f'The test set gives images of {shape[1]} x {shape[0]} pixels, and '
            f'the file takes {size[1]} x {size[0]}: set image_size in '
            '--cfg-options.')
    return check.mean_average_precision(
        predict, run, dataset, facts['input']['dtype'] == 'uint8')


def scenes() -> List[np.ndarray]:
    """Built-in images of several sizes."""
    return [draw((0, 'test', index, 96 + 16 * (index % 4)))
            for index in range(OWN_IMAGES)]
