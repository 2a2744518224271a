"""CLIP with prompts: image -> dense map in the joint space; class names ->
text features."""
from contextlib import nullcontext
from typing import Callable, Iterable, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.mmengine_private import skip_init

from ..class_blocks import Classes, take
from ..towers import (
    FrozenModule,
    WindowedTower,
    check_windows,
    image_tower,
    load_clip,
    unpack_rows,
)


class CLIPFeatures(tuple):
    """What :class:`CLIPPromptBackbone` hands to a head.

    To everything else it is ``(dense,)``, the features of any MMPretrain
    backbone.

    Built from the map alone, as MMPretrain's feature extractor does, it has no
    text.
    """

    def __new__(cls, maps: Iterable[Tensor],
                text: Union[None, Tensor, Callable[..., Tensor]] = None,
                zero_shot_text: Optional[Tensor] = None,
                text_mean: Optional[Tensor] = None,
                pooled: Optional[Tensor] = None,
                classes: Classes = None):
        """
        Args:
            maps: ``(dense,)``, the ``(B, D, H, W)`` map in the joint space.
            text: ``(P, C, D)`` prompted text features, normalised; or the
                text encoder, which is called when they are asked for.
            zero_shot_text: ``(C, D)`` of "a photo of a {class}.", normalised.
            text_mean: ``(D,)`` subtracted from text; None: nothing was.
            pooled: ``(B, D)`` CLIP's own image embedding, if it was asked for.
            classes: Which classes the text is of; None: all.
        """
        feats = super().__new__(cls, maps)
        feats.text_source = text
        feats.zero_shot_text = zero_shot_text
        feats.text_mean = text_mean
        feats.pooled = pooled
        feats.classes = classes
        return feats

    @property
    def dense(self) -> Tensor:
        return self[-1]

    @property
    def text(self) -> Optional[Tensor]:
        """``(P, C, D)``. An encoder is called at every access, with gradients
        or without, as the caller's: :meth:`select` keeps what it gives."""
        source = self.text_source
        return source() if callable(source) else source

    def select(self, classes: Classes = None) -> 'CLIPFeatures':
        """The same with the text of some classes; an encoder encodes only
        these.

        Args:
            classes: ``(K,)`` indices on the CPU, or a slice; None: all.
        """
        if classes is None:
            return self.replace(text=self.text)
        source = self.text_source
        text = source(classes) if callable(source) else (
            take(source, classes, 1))
        if isinstance(classes, Tensor):
            classes = classes.to(text.device, non_blocking=True)
        return self.replace(
            text=text, zero_shot_text=take(self.zero_shot_text, classes),
            classes=classes)

    def replace(self, **changed) -> 'CLIPFeatures':
        """The same with other entries: ``dense``, or those of the
        constructor."""
        maps = (changed.pop('dense', self.dense), )
        own = dict(vars(self))
        own['text'] = own.pop('text_source')
        return CLIPFeatures(maps, **(own | changed))


@MODELS.register_module()
class CLIPPromptBackbone(BaseModule):
    """Both towers of CLIP, frozen by default, with learned prompts.

    Args:
        arch: open_clip's name ('RN101', 'ViT-B-16', 'convnext_base_w', ...),
            or 'mini', which ships with the package.
        weights: An open_clip tag ('openai'); 'default', which is that tag or,
            where an architecture lacks it, its first; a state-dict file;
            OpenAI's own TorchScript file; or None for random values ('mini':
            its own).
        classes: Class names: a list, a known set ('coco', 'voc', 'scenes',
            ...), or a text file with one name a line. None: no text side; the
            output is then ``(dense,)``, as of any MMPretrain backbone.
        image_size: Input side in pixels, which a ViT is built for. None: that
            of its weights' training. ResNets, ConvNeXt and others take any
            size, whatever this says.
        prompt: Options of :class:`~trm_ml_mm.models.text.PromptLearner`:
            ``context``, ``pair``, ``class_specific``, ``learnable``.
        prompt_names: Words for class names, as ``{'tvmonitor': 'tv monitor'}``.
        text_residual: See
            :class:`~trm_ml_mm.models.text.PromptedTextEncoder`.
        align: Centre the joint space, and adapt the head's scales to its
            spread; see :mod:`~trm_ml_mm.models.alignment`.
        pooled: Also compute CLIP's own image embedding.
        dense: How the dense map is made from the same weights: 'value',
            'heads', 'sclip', 'clearclip', 'naclip' or 'region', as far as the
            tower has them; None: the default of its family. What each does:
            docs/towers.md, "Better dense maps".
        windows: ``dict(size=224, stride=112)``: build the tower for images of
            ``size`` and show it larger ones in windows; see
            :class:`~trm_ml_mm.models.towers.WindowedTower`. None: show it
            whole images.
        feature_grid: Height and width of a cached dense map. Inputs are then
            cached features ``(B, 1 + L, D)``, see
            :mod:`~trm_ml_mm.models.towers.layout`.
        quick_gelu: See :func:`~trm_ml_mm.models.towers.load_clip`.
        tower_dtype: 'bfloat16' or 'float16' runs the frozen visual tower in
            half precision, in half the memory; its features leave in fp32.
        compile: Run both towers through ``torch.compile``; needs a C++
            compiler, and minutes before the first step.
        frozen: False: both towers are learned and saved too. On several ranks
            this needs ``find_unused_parameters = True`` in the config.
        text_encoder: Registered module for the text side, which takes what
            :class:`~trm_ml_mm.models.text.PromptedTextEncoder` takes.

    Calling it on ``(B, 3, H, W)`` images gives :class:`CLIPFeatures`.

    Raises:
        ValueError: See :func:`~trm_ml_mm.models.towers.load_clip`; if the
            tower cannot make the dense map, or windows do not fit; or if a
            ViT gets images of another size than it was built for.
    """

    def __init__(self,
                 arch: str,
                 weights: Optional[str] = None,
                 classes: Union[None, str, Sequence[str]] = None,
                 image_size: Optional[int] = None,
                 prompt: Optional[dict] = None,
                 prompt_names: Optional[dict] = None,
                 text_residual: float = 0.,
                 align: bool = False,
                 pooled: bool = False,
                 dense: Optional[str] = None,
                 windows: Optional[dict] = None,
                 feature_grid: Optional[Sequence[int]] = None,
                 quick_gelu: Optional[bool] = None,
                 tower_dtype: str = 'float32',
                 compile: bool = False,
                 frozen: bool = True,
                 text_encoder: str = 'trm_ml_mm.PromptedTextEncoder'):
        super().__init__()
        if tower_dtype not in ('float32', 'bfloat16', 'float16') or (
                tower_dtype != 'float32' and not frozen):
            raise ValueError(
                "tower_dtype is 'float32', or 'bfloat16' or 'float16' for a "
                f'frozen tower, got {tower_dtype!r}.')
        if windows is not None:
            check_windows(windows)
            image_size = windows['size']
        loaded = load_clip(arch, weights, image_size, quick_gelu)
        self.tower_dtype = getattr(torch, tower_dtype)
        loaded.model.visual.to(self.tower_dtype)
        self.arch = arch
        self.dense, self.windows = dense, windows
        self.frozen = frozen
        self.fingerprint = loaded.fingerprint
        self.mean, self.std = loaded.mean, loaded.std
        self.with_pooled = pooled
        self.feature_grid = feature_grid
        self.embed_dim = loaded.embed_dim
        # The tower has one owner, the text side if there is one, so that
        # nothing is stored or moved twice.
        self.text = None
        if classes is not None:
            self.text = MODELS.build(dict(
                type=text_encoder,
                classes=classes,
                clip=loaded,
                prompt=prompt,
                prompt_names=prompt_names,
                residual=text_residual,
                align=align,
                frozen=frozen,
                compile=compile))
        else:
            self.tower = FrozenModule(loaded.model) if frozen else loaded.model
        self.set_encoder(compile)

    def set_encoder(self, compile: bool) -> None:
        """Run the visual tower as it is, or through ``torch.compile``.

        To be called again after :attr:`visual`, ``dense`` or ``windows``
        became another one.
        """
        tower = image_tower(self.visual, self.arch, self.dense)
        if self.windows is not None:
            tower = WindowedTower(tower, **self.windows)
        self.image_tower = tower
        self._encode = torch.compile(tower) if compile else tower

    @property
    def class_names(self) -> Optional[Tuple[str, ...]]:
        return None if self.text is None else self.text.class_names

    @property
    def visual(self) -> nn.Module:
        """open_clip's visual tower."""
        if self.text is not None:
            return self.text.clip.visual
        return (self.tower.module if self.frozen else self.tower).visual

    def forward(self,
                x: Tensor,
                pooled: Optional[bool] = None
                ) -> Union[CLIPFeatures, Tuple[Tensor]]:
        dense, pooled = self.encode_image(
            x, self.with_pooled if pooled is None else pooled)
        if self.text is None:
            return (dense, )
        return CLIPFeatures((dense, ), self.text, self.text.zero_shot_text(),
                            self.text.text_mean(), pooled)

    def encode_image(self,
                     x: Tensor,
                     pooled: bool = True) -> Tuple[Tensor, Optional[Tensor]]:
        """Dense map ``(B, D, H, W)`` and, if asked, embedding ``(B, D)``."""
        if self.feature_grid is not None:
            dense, embedding = unpack_rows(x, self.feature_grid)
            return dense, embedding if pooled else None
        half = self.tower_dtype != torch.float32
        with torch.no_grad() if self.frozen else nullcontext():
            dense, pooled = self._encode(
                x.to(self.tower_dtype) if half else x, pooled)
            if half:
                dense = dense.float()
                pooled = None if pooled is None else pooled.float()
        return dense, pooled

    @torch.no_grad()
    def image_attention(self, x: Tensor) -> Tensor:
        """Where the tower's own pooling looks: ``(B, 3, H, W)`` ->
        ``(B, L)``.

        Raises:
            ValueError: If it does not pool by attention, or sees windows.
        """
        return self.image_tower.attention(x.to(self.tower_dtype)).float()

    def train(self, mode: bool = True):
        """Keep BatchNorm of a learned tower in eval mode: its statistics would
        differ between ranks."""
        super().train(mode)
        if not self.frozen:
            for module in self.visual.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _apply(self, fn, *args, **kwargs):
        super()._apply(fn, *args, **kwargs)
        if self.text is None and self.frozen:
            self.tower.module._apply(fn)
        return self

    def init_weights(self):
        """Nothing to do: the constructor initialised everything."""
        skip_init(self)
