"""Build a CLIP and load its weights.

Both towers come from open_clip. This file picks QuickGELU or GELU as the
weights need it, and resizes a tower to the input.
"""
import difflib
import hashlib
import json
import logging
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple

import open_clip
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU
from torch import nn

from trm_ml_mm.utils.screen import say

from .elsewhere import ELSEWHERE, config_elsewhere, own_weights
from .mini import (
    MINI_CLIPS,
    MINI_CONFIGS,
    build_mini,
    unpack_state,
)
from .text import text_part
from .tokens import refuse_without_transformers
from .weights_file import fit, load_checked, read_state_dict

DEFAULT = 'default'  # weights: see default_weights
CLIP_SIZE = 224  # where open_clip's config of an architecture has no size


class LoadedCLIP(NamedTuple):
    """A CLIP, its fingerprint, and the normalisation of its images."""

    model: nn.Module
    arch: str
    fingerprint: str  # of architecture and weights, 64 hexadecimal digits
    mean: Tuple[float, ...]  # that its images are normalised with: RGB, 0..255
    std: Tuple[float, ...]
    embed_dim: int  # D, width of the joint space


def load_clip(arch: str,
              weights: Optional[str],
              image_size: Optional[int] = None,
              quick_gelu: Optional[bool] = None) -> LoadedCLIP:
    """Build a CLIP and load its weights.

    Args:
        arch: open_clip's name ('RN50', 'RN101', 'RN50x4', 'ViT-B-32',
            'ViT-B-16', 'ViT-L-14', ...); 'mini', 'mini-wide' or 'mini-vit',
            which ship with this package; 'local-dir:FOLDER' for a folder as
            open_clip saves one, or 'hf-hub:NAME' for one on the Hugging Face
            hub.
        weights: An open_clip tag such as 'openai'; 'default', see
            :func:`default_weights`; a state-dict file; OpenAI's own
            TorchScript file; or None for random values (a mini CLIP, a
            folder: its own weights).
        image_size: Input side in pixels of a tower that is built for one: the
            position embedding is resized once. None: the one of
            :func:`built_size`.
        quick_gelu: Whether the weights need QuickGELU. None: known for a tag,
            for OpenAI's files and for ResNets, whose public weights all do.

    Raises:
        ValueError: If the architecture is unknown, the file holds another
            architecture, or ``quick_gelu`` is needed and not given.
        FileNotFoundError: If ``weights`` is neither a tag of the architecture
            nor a file, or 'default' where there is no tag.
    """
    if weights == DEFAULT:
        weights = default_weights(arch)
    if arch in MINI_CLIPS:
        return _load_mini(arch, weights)
    config = _arch_config(arch)
    check_transformers(arch, config)
    if arch.startswith(ELSEWHERE):
        weights = weights or own_weights(arch)
    vision = config['vision_cfg']
    is_vit = 'timm_model_name' not in vision and (
        not isinstance(vision.get('layers'), (list, tuple)))
    options = {}
    if is_vit and image_size is not None:
        options['force_image_size'] = image_size

    if weights in open_clip.list_pretrained_tags_by_model(arch):
        if quick_gelu is None:
            facts = open_clip.get_pretrained_cfg(arch, weights)
            quick_gelu = bool(
                facts.get('quick_gelu', config.get('quick_gelu', False)))
        try:
            model = open_clip.create_model(
                arch, weights, force_quick_gelu=quick_gelu, **options)
        except (RuntimeError, OSError) as error:  # no internet, no room
            raise FileNotFoundError(
                f'CLIP {arch} with the weights {weights!r} cannot be '
                f'downloaded. {error} Or give a file: weights=PATH; in a '
                'command, --cfg-options model.backbone.weights=PATH.'
            ) from error
        source = f'open_clip tag {weights!r}'
    else:
        state = {}
        if weights is None:
            quick_gelu = bool(quick_gelu)
            source = 'RANDOM values (weights=None)'
        else:
            state, from_openai = read_state_dict(weights, arch)
            if quick_gelu is None:
                quick_gelu = from_openai or config.get(
                    'quick_gelu', 'layers' in vision and not is_vit)
                if is_vit and not (from_openai or 'quick_gelu' in config
                                   or arch.startswith(ELSEWHERE)):
                    raise ValueError(
                        f'{weights} does not tell whether its ViT was trained '
                        'with QuickGELU: set quick_gelu=True for OpenAI\'s '
                        'weights, quick_gelu=False for LAION\'s.')
            source = weights
        with _without_alarm():
            model = open_clip.create_model(
                arch,
                pretrained=None,
                load_weights=False,
                force_quick_gelu=quick_gelu,
                pretrained_text=False,
                **options)
        if state:
            load_checked(model, fit(state, model), weights, arch)
    if image_size is not None and 'timm_model_name' in vision:
        resize_trunk(model.visual, image_size, arch)
    say(f'CLIP {arch}: weights from {source}, '
        f'{"QuickGELU" if quick_gelu else "GELU"}.')
    return _finish(model, arch)


def resize_trunk(visual: nn.Module, size: int, arch: str) -> None:
    """Let a trunk of timm take images of this size, once and for all: its
    position embedding, or its windows, are resized. (A convolutional one
    takes any size.)

    Raises:
        ValueError: If it cannot.
    """
    if tuple(visual.image_size) == (size, size) or (
            not hasattr(visual.trunk, 'set_input_size')):
        return
    try:
        visual.trunk.set_input_size(img_size=size)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f'{arch} takes images of {visual.image_size[0]} px only: set '
            f'image_size={visual.image_size[0]}.') from error
    visual.image_size = size, size


@contextmanager
def _without_alarm() -> Iterator[None]:
    """open_clip warns of random values where none are asked for, although they
    come from a file next; what they are is logged here."""
    def is_other(record: logging.LogRecord) -> bool:
        return 'No pretrained weights' not in record.getMessage()

    logger = logging.getLogger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _load_mini(arch: str, weights: Optional[str]) -> LoadedCLIP:
    path = Path(weights or MINI_CLIPS[arch])
    if not path.is_file():
        raise FileNotFoundError(
            f'mini CLIP weights {path} do not exist; leave weights=None for '
            'those that ship with trm_ml_mm.')
    model = build_mini(arch)
    packed, _ = read_state_dict(str(path), 'RN50')
    if 'token_embedding.rows' not in packed:
        raise ValueError(f'{path} does not hold mini CLIP weights; use those '
                         'that tools/pretrain_mini_clip.py writes.')
    state = unpack_state(packed, model.vocab_size)
    load_checked(model, state, str(path), arch)
    model.known_tokens = set(packed['token_embedding.used'].tolist())
    return _finish(model, arch)


def _finish(model: nn.Module, arch: str) -> LoadedCLIP:
    model.float()
    if hasattr(model.visual, 'attnpool'):
        model.visual.to(memory_format=torch.channels_last)
    mean, std = (tuple(255 * v for v in values)
                 for values in normalisation(model, arch))
    return LoadedCLIP(model, arch, fingerprint(model, arch), mean, std,
                      joint_width(arch))


def normalisation(model: nn.Module, arch: str
                  ) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
    """Mean and standard deviation of a tower's images, in 0..1.

    A tag says its own. A file does not: it gets those of the architecture's
    tags, if these agree (MobileCLIP's are 0 and 1), else CLIP's.
    """
    own = open_clip.get_model_preprocess_cfg(model)
    known = (('mean', OPENAI_DATASET_MEAN), ('std', OPENAI_DATASET_STD))
    found = [tuple(own.get(key) or default) for key, default in known]
    if found != [default for _, default in known]:
        return tuple(found)
    tags = [open_clip.get_pretrained_cfg(arch, tag)
            for tag in open_clip.list_pretrained_tags_by_model(arch)]
    said = {tuple(tuple(tag.get(key) or default) for key, default in known)
            for tag in tags}
    return said.pop() if len(said) == 1 else tuple(found)


@torch.no_grad()
def fingerprint(model: nn.Module, arch: str) -> str:
    """SHA-256 over architecture, activation and a part of every tensor.

    Of each tensor some thousand evenly spaced values count: another training,
    size or precision changes it, and a 500 MB tower takes a fraction of a
    second.
    """
    # Where a folder lies is no part of what it holds.
    what = (json.dumps(config_elsewhere(arch), sort_keys=True)
            if arch.startswith(ELSEWHERE) else arch)
    act = next((type(module).__name__
                for module in text_part(model).transformer.modules()
                if isinstance(module, (nn.GELU, QuickGELU))), '')
    digest = hashlib.sha256(f'{what} {act}'.encode())
    for key, value in sorted(model.state_dict().items()):
        flat = value.reshape(-1)
        step = max(1, flat.numel() // 4096)
        digest.update(key.encode() + str(tuple(value.shape)).encode())
        digest.update(flat[::step].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def joint_width(arch: str) -> int:
    """Width D of an architecture's joint space, without building it.

    Raises:
        ValueError: If open_clip does not know the architecture.
    """
    return _arch_config(arch)['embed_dim']


def built_size(arch: str) -> Optional[int]:
    """Side in pixels of the images that an architecture is built for, without
    building it; None: it takes any size (ResNets, ConvNeXt, MobileCLIP-S).

    Raises:
        ValueError: If open_clip does not know the architecture.
    """
    vision = _arch_config(arch)['vision_cfg']
    trunk = vision.get('timm_model_name')
    if trunk:  # timm says it of each of its models
        any_size = not timm.get_pretrained_cfg(trunk).fixed_input_size
    else:
        any_size = isinstance(vision.get('layers'), (list, tuple))
    return None if any_size else vision.get('image_size', CLIP_SIZE)


def default_weights(arch: str) -> Optional[str]:
    """The tag that ``weights='default'`` stands for: 'openai' if the
    architecture has it, else the first one that open_clip lists for it. None:
    the own weights of a mini CLIP, or of a folder.

    Raises:
        ValueError: If open_clip does not know the architecture.
        FileNotFoundError: If it has no weights for it.
    """
    if arch in MINI_CLIPS or arch.startswith(ELSEWHERE):
        return None
    _arch_config(arch)
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not tags:
        raise FileNotFoundError(
            f'open_clip has no weights for {arch}: give a file, weights=PATH; '
            'in a command, --cfg-options model.backbone.weights=PATH.')
    return 'openai' if 'openai' in tags else tags[0]


def _arch_config(arch: str) -> dict:
    if arch in MINI_CONFIGS:
        return MINI_CONFIGS[arch]
    if arch.startswith(ELSEWHERE):
        return config_elsewhere(arch)
    config = open_clip.get_model_config(arch)
    if config is None:
        close = difflib.get_close_matches(
            arch, [*MINI_CLIPS, *open_clip.list_models()], 1)
        hint = f'did you mean {close[0]}? ' if close else ''
        raise ValueError(
            f'open_clip knows no architecture {arch!r}; {hint}'
            'open_clip.list_models() has all names, such as RN101 or '
            f'ViT-B-16; {", ".join(MINI_CLIPS)} ship with trm_ml_mm; '
            "'local-dir:FOLDER' and 'hf-hub:NAME' are towers from elsewhere.")
    return config


def check_transformers(arch: str, config: dict) -> None:
    """Refuse an architecture whose text tower is Hugging Face's, if their
    library is missing.

    Raises:
        ImportError: If it is.
    """
    if config['text_cfg'].get('hf_model_name') and (
            find_spec('transformers') is None):
        refuse_without_transformers(arch)


def save_random_weights(arch: str, path: str, seed: int = 0) -> None:
    """Write a state dict of the right architecture with random values.

    For smoke runs on machines that can't download: everything works as with
    real weights, and no figure means anything.
    """
    torch.manual_seed(seed)
    with _without_alarm():
        model = open_clip.create_model(arch, load_weights=False,
                                       pretrained_text=False)
    for name, value in model.named_parameters():
        # open_clip starts these at zero, which would cut layers off.
        if name.endswith('bn3.weight'):
            nn.init.constant_(value, 0.5)
    _measure_batch_norm(model.visual)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)


@torch.no_grad()
def _measure_batch_norm(visual: nn.Module, images: int = 8) -> None:
    """Set the statistics of a tower's BatchNorm on images of random colours.

    With those that it starts with, all images look alike to a deep ResNet of
    random values. A head that tells them apart all the same would magnify
    rounding errors ten thousand times.
    """
    layers = [module for module in visual.modules()
              if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return
    for layer in layers:
        layer.momentum = 1.
        layer.train()
    colours = torch.randn(images, 3, 8, 8)
    visual(nn.functional.interpolate(colours, visual.image_size,
                                     mode='bicubic'))
    visual.eval()
