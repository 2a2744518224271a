"""The part of a trained model that goes into a file."""
from copy import deepcopy
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from trm_ml_mm.evaluation import Calibration
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.feature_maps import map_size
from trm_ml_mm.models.text import BakedText
from trm_ml_mm.models.towers import FrozenModule

from .inputs import ImageInput, InputRule
from .probabilities import Scores

# Parts of a head that only a training needs.
TRAINING_ONLY = ('prototypes', 'distillation', 'contrast', 'region_loss',
                 'loss_module', 'label_statistics')

LONGEST = 2**16  # axis of an input


class ExportedModel(nn.Module):
    """Images in, scores out: an independent copy of a model, on the CPU.

    The text features are constants in it, and there is no text tower. Nothing
    of it decides by the values of a tensor.

    Args:
        model: In eval mode.
        rule: How it takes images.
        maps: Also give the saliency maps.
        preprocess: Take RGB images as they are; see
            :class:`~trm_ml_mm.export.inputs.ImageInput`.
        half: Run the backbone in half precision; the head stays in fp32.
        calibration: Of the model; None: scores are the sigmoid of logits.

    Calling it gives ``scores`` and ``logits`` ``(B, C)`` and, on request,
    ``maps`` ``(B, C, h, w)``, each of which sums to 1.

    Raises:
        ValueError: If the head has no maps and they are asked for.
    """

    def __init__(self, model: nn.Module, rule: InputRule, maps: bool = False,
                 preprocess: bool = False, half: bool = False,
                 calibration: Optional[Calibration] = None):
        super().__init__()
        head = model.head
        if maps and not hasattr(head, 'saliency'):
            raise ValueError(f'{type(head).__name__} has no map of where a '
                             'category is: export without maps.')
        self.rule, self.preprocess = rule, preprocess
        self.scores = Scores(calibration)
        self.outputs = ('scores', 'logits', 'maps')[:3 if maps else 2]
        self.model = deepcopy(model)
        self.visual = _without_text_tower(self.model)
        self.model.cpu().requires_grad_(False).eval()
        _set_precision(self.model, half)
        for name in TRAINING_ONLY:
            if hasattr(self.model.head, name):
                setattr(self.model.head, name, None)
        self.input = ImageInput(rule) if preprocess else None
        self.eval()
        with torch.no_grad():  # a head that cannot do it says so
            self(self.example(1))

    def example(self, batch: int) -> Tensor:
        """An input of the right shape."""
        height, width = self.rule.size
        if self.preprocess:
            if self.rule.mode is not None:  # any size will do
                height, width = height + 8, width + 16
            return torch.randint(256, (batch, 3, height, width),
                                 dtype=torch.uint8)
        return torch.randn(batch, 3, height, width)

    def dynamic_axes(self) -> Dict[int, str]:
        """The axes of the input that may have any length."""
        if self.preprocess and self.rule.mode is not None:
            return {0: 'batch', 2: 'height', 3: 'width'}
        return {0: 'batch'}

    def dynamic_shape(self) -> Dict[int, torch.export.Dim]:
        """The same, as PyTorch's exporter takes it."""
        return {axis: torch.export.Dim(name, min=1, max=LONGEST)
                for axis, name in self.dynamic_axes().items()}

    def forward(self, image: Tensor) -> Tuple[Tensor, ...]:
        if self.input is not None:
            image = self.input(image)
        feats = self.model.extract_feat(image)
        logits = self.model.head(feats)
        found = self.scores(logits), logits
        if 'maps' in self.outputs:
            maps = self.model.head.saliency(feats)
            found += (maps.unflatten(2, map_size(feats, maps.shape[2])), )
        return found


def in_full_precision(model: nn.Module) -> nn.Module:
    """A model; or, if its tower runs in half precision, a copy in fp32."""
    backbone = model.backbone
    if getattr(backbone, 'tower_dtype', torch.float) == torch.float:
        return model
    model = deepcopy(model)
    _without_text_tower(model)
    _set_precision(model, half=False)
    return model


def _without_text_tower(model: nn.Module) -> Optional[nn.Module]:
    """Bake the text of a copied model, and give it a visual tower of its own,
    which is returned; None of another backbone."""
    if getattr(model.head, 'text', None) is not None:
        model.head.text = BakedText.of(model.head.text)
    backbone = model.backbone
    if not isinstance(backbone, CLIPPromptBackbone):
        return None
    if backbone.text is not None:
        backbone.text = BakedText.of(backbone.text)
    visual = _own_visual_tower(backbone, backbone.text or backbone)
    if not backbone.with_pooled:
        backbone.image_tower.fold()
    return visual


def _own_visual_tower(backbone: CLIPPromptBackbone, owner: nn.Module
                      ) -> nn.Module:
    """Copy the visual tower, which copies of a model share; returns it."""
    tower = nn.ModuleDict(dict(visual=deepcopy(backbone.visual)))
    owner.tower = FrozenModule(tower) if backbone.frozen else tower
    backbone.set_encoder(compile=False)
    return tower.visual


def _set_precision(model: nn.Module, half: bool) -> None:
    """Half or full precision of a backbone, the latter in place of what it
    was trained with too."""
    backbone, dtype = model.backbone, torch.half if half else torch.float
    if isinstance(backbone, CLIPPromptBackbone):
        backbone.visual.to(dtype)
        backbone.tower_dtype = dtype
    elif half:
        model.backbone = HalfBackbone(backbone)


class HalfBackbone(nn.Module):
    """Any backbone in half precision; its features leave in fp32.

    Args:
        backbone: Gives a tensor, or several.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone.half()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        found = self.backbone(x.half())
        if isinstance(found, Tensor):
            found = (found, )
        return tuple(feature.float() for feature in found)
