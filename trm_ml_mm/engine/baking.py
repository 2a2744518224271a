"""Make a model that needs no text tower."""
from copy import deepcopy
from typing import Dict, Tuple

from torch import Tensor, nn

from trm_ml_mm.models.text import BakedText

from .description import ModelDescription

BAKED = 'trm_ml_mm.BakedText'


def bake_text(model: nn.Module, description: ModelDescription,
              state_dict: Dict[str, Tensor]
              ) -> Tuple[ModelDescription, Dict[str, Tensor]]:
    """Store the text features themselves, in place of what computes them.

    A model that is built from the result predicts the same, bit for bit. It
    loads its CLIP for the visual tower alone.

    Args:
        model: A trained one, in eval mode.
        description: Of the model.
        state_dict: Of the model.

    Returns:
        Description and state dict of the model with
        :class:`~trm_ml_mm.models.text.BakedText`. Those given stay as they
        are. Without a text side, nothing changes.
    """
    config, state = deepcopy(description.model), dict(state_dict)
    backbone = getattr(model.backbone, 'text', None)
    if backbone is not None:
        config['backbone']['text_encoder'] = BAKED
        state = _baked_state(state, 'backbone.text.', backbone)
    own = getattr(model.head, 'text', None)
    if own is not None:
        baked = BakedText.of(own)
        config['head']['text'] = dict(
            type=BAKED, classes=list(baked.class_names),
            prompt_names=dict(zip(baked.class_names, baked.words)),
            prompt=dict(pair=len(baked.prompted) == 2),
            embed_dim=baked.embed_dim, align=baked.mean is not None)
        state = _baked_state(state, 'head.text.', own)
    return description._replace(model=config), state


def _baked_state(state: Dict[str, Tensor], prefix: str, text: nn.Module
                 ) -> Dict[str, Tensor]:
    """The same, but for what belongs to this text encoder. (A learned visual
    tower belongs to the text side too, and stays.)"""
    kept = {key: value for key, value in state.items()
            if not key.startswith(prefix)}
    return kept | {prefix + key: value.cpu() for key, value in
                   BakedText.of(text).state_dict().items()}
