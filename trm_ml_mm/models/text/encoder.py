"""Class names -> text features, by CLIP's text tower and learned prompts."""
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from trm_ml_mm.labels import class_names, prompt_name, vocabulary
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_not_negative
from trm_ml_mm.utils.mmengine_private import skip_init

from ..alignment import centred
from ..towers import (
    FrozenModule,
    LoadedCLIP,
    can_be_cut,
    encode_whole,
    load_clip,
    text_part,
)
from .identity import check_identity, text_identity
from .prompt_learner import PromptLearner


def encode_prompts(clip: nn.Module, prefix: Tensor, suffix: Tensor,
                   end: Tensor, kept: Tensor) -> Tensor:
    """Text features of embedded prompts.

    The same function as ``clip.encode_text``, but from token embeddings, and
    over no more positions than needed. The tower is causal, so the prefix that
    all prompts share is computed once, and positions beyond an end token are
    not computed at all.

    Args:
        clip: What reads the text: open_clip's ``CLIP``, or the text tower of
            another one for which :func:`~..towers.can_be_cut` holds.
        prefix: ``(P, S, width)`` embeddings that all C prompts share.
        suffix: ``(P, C, R, width)`` the rest of each; S + R <= 77.
        end: ``(C,)`` position of each prompt's end token, at least S.
        kept: ``(T,)``, of :func:`~.prompt_learner.kept_positions`.

    Returns:
        ``(P, C, D)``, not normalised.
    """
    groups, classes, own, width = suffix.shape
    shared = prefix.shape[1]
    positions = clip.positional_embedding[:shared + own]
    x = prefix + positions[:shared]  # P S w
    y = (suffix + positions[shared:]).flatten(1, 2)[:, kept]  # P T w
    # A suffix position sees the whole prefix, and the suffix up to itself.
    visible = torch.ones(own, shared + own, dtype=torch.bool, device=x.device
                         ).tril(shared)

    def padded(value):  # P T w -> PC R w
        whole = value.new_zeros(groups, classes * own, value.shape[-1])
        whole = whole.index_copy(1, kept, value)
        return whole.view(groups * classes, own, -1)

    for block in clip.transformer.resblocks:
        query, key, value = _heads(block, _projections(block, x))
        attended = F.scaled_dot_product_attention(
            query, key, value, is_causal=True)
        x = _after_attention(block, x, _joined(attended))
        query, *pair = _heads(block, padded(_projections(block, y)))
        key, value = (
            torch.cat([_repeat(a, classes), b], 2)
            for a, b in zip((key, value), pair))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible)
        attended = _joined(attended).reshape(groups, classes * own, width)
        y = _after_attention(block, y, attended[:, kept])
    # The last position kept of each class is that of its end token.
    last = torch.cumsum(end - shared + 1, 0) - 1
    return clip.ln_final(y[:, last]) @ clip.text_projection


def _projections(block: nn.Module, x: Tensor) -> Tensor:
    """Queries, keys and values, ``(..., 3 width)``."""
    attn = block.attn
    return F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)


def _heads(block: nn.Module, qkv: Tensor) -> Tuple[Tensor, ...]:
    """``(N, L, 3 width)`` -> three ``(N, heads, L, d)``."""
    return tuple(
        part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        for part in qkv.chunk(3, -1))


def _joined(attended: Tensor) -> Tensor:
    """``(N, heads, L, d)`` -> ``(N, L, width)``."""
    return attended.transpose(1, 2).flatten(2)


def _after_attention(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block: output projection, residuals, MLP."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _repeat(x: Tensor, times: int) -> Tensor:
    """``(P, h, S, d)`` -> ``(P * times, h, S, d)``, each repeated in a row."""
    return x[:, None].expand(-1, times, -1, -1, -1).flatten(0, 1)


@MODELS.register_module()
class PromptedTextEncoder(BaseModule):
    """Prompted text features of every class, (P, C, D).

    Args:
        classes: See :func:`trm_ml_mm.labels.class_names`.
        clip: A loaded CLIP; None: load it from ``arch`` and ``weights``.
        arch: See :func:`trm_ml_mm.models.towers.load_clip`.
        weights: See :func:`trm_ml_mm.models.towers.load_clip`.
        quick_gelu: See :func:`trm_ml_mm.models.towers.load_clip`.
        prompt: Options of :class:`PromptLearner`.
        prompt_names: Words for class names, such as
            ``{'tvmonitor': 'tv monitor'}``; those of the known data sets are
            built in.
        residual: Add ``residual * delta_c`` to class c's normalised feature
            (task residual, arXiv 2211.10277). delta starts at zero, so the
            text moves only as far as labels ask for it. 0: none.
        align: Subtract the mean text, see :meth:`text_mean`, from the
            features.
        frozen: Keep the text tower frozen. False: it is learned, and stored in
            checkpoints.
        compile: Run the tower through ``torch.compile``.

    Features of fixed prompts are computed once. In eval mode, all features are
    kept until a learned value changes.

    Raises:
        ValueError: If ``arch`` is missing, a name in ``prompt_names`` is not a
            class, the residual is negative, both prompts of a pair are fixed,
            or a checkpoint belongs to another CLIP or to other class names.
    """

    class_axes = dict(residual=(1, ))

    def __init__(self,
                 classes: Union[str, Sequence[str]],
                 clip: Optional[LoadedCLIP] = None,
                 arch: Optional[str] = None,
                 weights: Optional[str] = None,
                 quick_gelu: Optional[bool] = None,
                 prompt: Optional[dict] = None,
                 prompt_names: Optional[dict] = None,
                 residual: float = 0.,
                 align: bool = False,
                 frozen: bool = True,
                 compile: bool = False):
        super().__init__()
        check_not_negative(text_residual=residual)
        if clip is None:
            if arch is None:
                raise ValueError('A text encoder of its own needs arch and '
                                 'weights, such as arch=\'RN101\'.')
            clip = load_clip(arch, weights, quick_gelu=quick_gelu)
            clip.model.visual = nn.Identity()  # only the text tower is used
        self.class_names: Tuple[str, ...] = class_names(classes)
        self.arch, self.fingerprint = clip.arch, clip.fingerprint
        self.embed_dim = clip.embed_dim
        self.words = words = [
            prompt_name(n, prompt_names) for n in self.class_names
        ]
        for name in prompt_names or {}:
            if name not in self.class_names:
                raise ValueError(f'prompt_names has "{name}", which is not '
                                 'among the class names.')
        self.prompt = PromptLearner(clip.model, words, **(prompt or {}))
        learns = list(self.prompt.parameters()) or residual
        if self.prompt.num_prompts == 2 and not learns:
            raise ValueError(
                'A positive and a negative prompt that are both fixed are '
                'equal, so every logit would be 0: set learnable=True in '
                'prompt, or pair=False.')
        self.zero_shot_prompt = PromptLearner(
            clip.model, words, 'a photo of a', learnable=False)
        self.align = align
        known = getattr(clip.model, 'known_tokens', None)
        self.vocabulary = None if not align else PromptLearner(
            clip.model, vocabulary(scenes=known is not None), 'a photo of a',
            learnable=False)
        self.residual_scale = residual
        if residual:
            self.residual = nn.Parameter(
                torch.zeros(self.prompt.num_prompts, len(words),
                            self.embed_dim))
        self.frozen = frozen
        self.is_cut = can_be_cut(clip.model)
        self._encode_prompts = (
            torch.compile(encode_prompts) if compile else encode_prompts)
        self.tower = FrozenModule(clip.model) if frozen else clip.model
        self._cache = self._zero_shot = self._fixed = self._mean = None
        # Stored in checkpoints, and compared when one is loaded.
        self.register_buffer('identity', self._identity())

    def _identity(self) -> Tensor:
        return text_identity(self.fingerprint, self.class_names, self.words)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'identity')
        if saved is not None:
            check_identity(saved, self._identity(), self.class_names,
                           self.arch)
        self._cache = self._fixed = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def clip(self) -> nn.Module:
        return self.tower.module if self.frozen else self.tower

    def zero_shot_text(self) -> Tensor:
        """Normalised features of "a photo of a {class}.", (C, D): what CLIP
        knew before any training. A frozen tower computes them once."""
        if self._zero_shot is None or not self.frozen:
            with torch.no_grad(), self._full_precision():
                features = self._tower_features(self.zero_shot_prompt)[0]
            if not self.frozen:
                return features
            self._zero_shot = features
        return self._zero_shot

    def text_mean(self) -> Optional[Tensor]:
        """The mean text, ``(D,)``: of "a photo of a {word}." over a fixed
        vocabulary, so that it does not depend on the classes. None without
        ``align``."""
        if self.vocabulary is None:
            return None
        if self._mean is None:
            with torch.no_grad(), self._full_precision():
                features = self._tower_features(self.vocabulary)[0]
            self._mean = features.mean(0)
        return self._mean

    def _tower_features(self, prompt: PromptLearner) -> Tensor:
        """Normalised output of the tower, ``(P, C, D)``."""
        if self.is_cut:
            features = self._encode_prompts(text_part(self.clip), *prompt())
        else:
            features = encode_whole(self.clip, *prompt()[:2], prompt.tokens)
        return F.normalize(features.float(), dim=-1)

    def forward(self) -> Tensor:
        """Normalised text features, ``(P, C, D)``."""
        if self.training or not self.frozen or torch.is_grad_enabled():
            self._cache = None
            return self._encode()
        learned = [p.detach() for p in self.parameters()]
        if self._cache is not None:
            features, values = self._cache
            if all(torch.equal(a, b) for a, b in zip(values, learned)):
                return features
        with self._full_precision():
            features = self._encode()
        self._cache = features, [p.clone() for p in learned]
        return features

    def _full_precision(self):
        """Features that are kept must not depend on the caller's autocast."""
        device = next(self.clip.parameters()).device.type
        return torch.autocast(device, enabled=False)

    def _prompt_features(self) -> Tensor:
        """Features before the residual; kept if no prompt is learned."""
        if self.frozen and not list(self.prompt.parameters()):
            if self._fixed is None:
                with torch.no_grad(), self._full_precision():
                    self._fixed = self._encoded()
            return self._fixed
        return self._encoded()

    def _encoded(self) -> Tensor:
        features = self._tower_features(self.prompt)
        if self.align:
            features = centred(features, self.text_mean())
        return features

    def _encode(self) -> Tensor:
        if not self.frozen:
            self._mean = None  # once per forward pass
        features = self._prompt_features()
        if self.residual_scale:
            features = F.normalize(
                features + self.residual_scale * self.residual, dim=-1)
        return features

    def _apply(self, fn, *args, **kwargs):
        super()._apply(fn, *args, **kwargs)
        if self.frozen:
            self.clip._apply(fn)
        self._cache = self._zero_shot = self._fixed = self._mean = None
        return self

    def init_weights(self):
        """Nothing to do: the constructor initialised everything."""
        skip_init(self)
