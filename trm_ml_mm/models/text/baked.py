"""Text features without a text tower: those that a training ended with."""
from typing import Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from trm_ml_mm.labels import class_names, prompt_name
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.mmengine_private import skip_init

from ..class_blocks import Classes, take
from ..towers import FrozenModule, LoadedCLIP
from .encoder import PromptedTextEncoder
from .identity import check_identity, text_identity


@MODELS.register_module()
class BakedText(BaseModule):
    """Stands for a trained :class:`PromptedTextEncoder`: its features are part
    of the state dict, and nothing computes them.

    In a ``CLIPPromptBackbone`` it keeps the visual tower alone; as the
    ``text`` of a head it needs no CLIP at all. Its values come from
    :meth:`of`, or from a state dict.

    Args:
        classes: See :func:`trm_ml_mm.labels.class_names`.
        clip: A loaded CLIP, which gives the visual tower; None: none.
        prompt: As of :class:`PromptedTextEncoder`; only ``pair`` counts.
        prompt_names: As of :class:`PromptedTextEncoder`.
        embed_dim: D; not needed with ``clip``.
        align: Whether there is a mean text.
        frozen: Keep the visual tower frozen. False: it is learned, and stored
            in checkpoints.
        residual: Not used; accepted so that it can replace
            :class:`PromptedTextEncoder`.
        compile: Not used; accepted so that it can replace
            :class:`PromptedTextEncoder`.

    Raises:
        ValueError: If neither ``clip`` nor ``embed_dim`` is given, or a
            checkpoint belongs to another CLIP or to other class names.
    """

    class_axes = dict(prompted=(1, ), zero_shot=(0, ))
    needs_all_classes = True

    def __init__(self,
                 classes: Union[str, Sequence[str]],
                 clip: Optional[LoadedCLIP] = None,
                 prompt: Optional[dict] = None,
                 prompt_names: Optional[dict] = None,
                 embed_dim: Optional[int] = None,
                 align: bool = False,
                 frozen: bool = True,
                 residual: float = 0.,
                 compile: bool = False):
        super().__init__()
        if clip is None and embed_dim is None:
            raise ValueError('BakedText without a CLIP needs embed_dim, the '
                             'joint width.')
        self.class_names: Tuple[str, ...] = class_names(classes)
        self.words = [prompt_name(n, prompt_names) for n in self.class_names]
        self.arch = self.fingerprint = self.tower = None
        self.frozen = frozen
        if clip is not None:
            self.arch, self.fingerprint = clip.arch, clip.fingerprint
            embed_dim = embed_dim or clip.embed_dim
            # Not the CLIP itself: without an owner, its text tower is freed.
            tower = nn.ModuleDict(dict(visual=clip.model.visual))
            self.tower = FrozenModule(tower) if frozen else tower
        self.embed_dim = embed_dim
        self.align = align
        prompts = 2 if (prompt or {}).get('pair') else 1
        count = len(self.class_names)
        self.register_buffer('prompted', torch.zeros(prompts, count, embed_dim))
        self.register_buffer('zero_shot', torch.zeros(count, embed_dim))
        self.register_buffer('mean', torch.zeros(embed_dim) if align else None)
        self.register_buffer('identity', text_identity(
            self.fingerprint, self.class_names, self.words))

    @classmethod
    @torch.no_grad()
    def of(cls, text: PromptedTextEncoder) -> 'BakedText':
        """The features that a trained encoder, in eval mode, gives now, beside
        its own visual tower (if it is a backbone's, and so has one)."""
        clip = None
        if not isinstance(getattr(text.clip, 'visual', nn.Identity()),
                          nn.Identity):
            clip = LoadedCLIP(text.clip, text.arch, text.fingerprint, (), (),
                              text.embed_dim)
        prompted, mean = text(), text.text_mean()
        baked = cls(text.class_names, clip, dict(pair=len(prompted) == 2),
                    dict(zip(text.class_names, text.words)), text.embed_dim,
                    mean is not None, text.frozen)
        for name, value in dict(prompted=prompted, mean=mean,
                                zero_shot=text.zero_shot_text(),
                                identity=text.identity).items():
            setattr(baked, name, None if value is None else value.clone(
                memory_format=torch.contiguous_format))
        return baked.eval()

    @property
    def clip(self) -> Optional[nn.Module]:
        """What is left of a CLIP: ``visual``; None without one."""
        return getattr(self.tower, 'module', self.tower)

    def forward(self, classes: Classes = None) -> Tensor:
        """Normalised text features of some classes, ``(P, C, D)``; None:
        of all."""
        return take(self.prompted, classes, 1)

    def zero_shot_text(self) -> Tensor:
        """See :meth:`PromptedTextEncoder.zero_shot_text`; ``(C, D)``."""
        return self.zero_shot

    def text_mean(self) -> Optional[Tensor]:
        """See :meth:`PromptedTextEncoder.text_mean`; ``(D,)`` or None."""
        return self.mean

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'identity')
        if saved is not None:
            check_identity(
                saved, text_identity(self.fingerprint, self.class_names,
                                     self.words),
                self.class_names, self.arch)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn, *args, **kwargs):
        super()._apply(fn, *args, **kwargs)
        if self.frozen and self.tower is not None:
            self.clip._apply(fn)
        return self

    def init_weights(self):
        """Nothing to do: the constructor initialised everything."""
        skip_init(self)
