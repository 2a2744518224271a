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
from ..class_blocks import Classes, class_blocks, take
from ..towers import FrozenModule, LoadedCLIP, TextTower, load_clip
from .identity import check_identity, text_identity
from .prompt_learner import PromptLearner


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
        self.frozen = frozen
        self.tower = FrozenModule(clip.model) if frozen else clip.model
        self.text_tower = tower = TextTower(clip.model, clip.arch, compile)
        self.prompt = PromptLearner(tower, words, **(prompt or {}))
        learns = list(self.prompt.parameters()) or residual
        if self.prompt.num_prompts == 2 and not learns:
            raise ValueError(
                'A positive and a negative prompt that are both fixed are '
                'equal, so every logit would be 0: set learnable=True in '
                'prompt, or pair=False.')
        self.zero_shot_prompt = PromptLearner(
            tower, words, 'a photo of a', learnable=False)
        self.align = align
        self.vocabulary = None if not align else PromptLearner(
            tower, vocabulary(scenes=tower.known_tokens is not None),
            'a photo of a', learnable=False)
        self.residual_scale = residual
        if residual:
            self.residual = nn.Parameter(
                torch.zeros(self.prompt.num_prompts, len(words),
                            self.embed_dim))
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

    def _tower_features(self, prompt: PromptLearner,
                        classes: Optional[Tensor] = None) -> Tensor:
        """Normalised output of the tower, ``(P, C, D)``; without gradients a
        block of classes at a time."""
        blocks = class_blocks(prompt.num_classes)
        if classes is None and len(blocks) > 1 and not torch.is_grad_enabled():
            every = torch.arange(prompt.num_classes)
            return torch.cat([self._tower_features(prompt, every[block])
                              for block in blocks], 1)
        return F.normalize(self.text_tower(*prompt(classes)).float(), dim=-1)

    def forward(self, classes: Classes = None) -> Tensor:
        """Normalised text features, ``(P, C, D)``.

        Args:
            classes: ``(K,)`` indices on the CPU: only of these, and in
                training only these are encoded. None: of all.
        """
        if self.training or not self.frozen or torch.is_grad_enabled():
            self._cache = None
            return self._encode(classes)
        learned = [p.detach() for p in self.parameters()]
        if self._cache is not None:
            features, values = self._cache
            if all(torch.equal(a, b) for a, b in zip(values, learned)):
                return take(features, classes, 1)
        with self._full_precision():
            features = self._encode()
        self._cache = features, [p.clone() for p in learned]
        return take(features, classes, 1)

    def _full_precision(self):
        """Features that are kept must not depend on the caller's autocast."""
        device = next(self.clip.parameters()).device.type
        return torch.autocast(device, enabled=False)

    def _prompt_features(self, classes: Classes) -> Tensor:
        """Features before the residual; kept if no prompt is learned."""
        if self.frozen and not list(self.prompt.parameters()):
            if self._fixed is None:
                with torch.no_grad(), self._full_precision():
                    self._fixed = self._encoded()
            return take(self._fixed, classes, 1)
        return self._encoded(classes)

    def _encoded(self, classes: Classes = None) -> Tensor:
        features = self._tower_features(self.prompt, classes)
        if self.align:
            features = centred(features, self.text_mean())
        return features

    def _encode(self, classes: Classes = None) -> Tensor:
        if not self.frozen:
            self._mean = None  # once per forward pass
        features = self._prompt_features(classes)
        if self.residual_scale:
            residual = take(self.residual, classes, 1)
            features = F.normalize(
                features + self.residual_scale * residual, dim=-1)
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
