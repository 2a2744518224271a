"""A classifier on a CLIP backbone, which knows what the head needs."""
from typing import Optional

from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

from trm_ml_mm.registry import MODELS

from .backbones import CLIPPromptBackbone
from .heads import MatchingHead, ZeroShotHead


@MODELS.register_module()
class CLIPClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier`` that fills in what the backbone knows.

    The head's ``num_classes`` and ``dim`` and the preprocessor's ``mean`` and
    ``std`` follow from the backbone, so that a config need not repeat them
    and they cannot contradict it. Values in the config win.

    Args:
        backbone: Config of a ``CLIPPromptBackbone`` with classes.
        head: Config of a head.
        data_preprocessor: Config, or None.
        **kwargs: See ``mmpretrain.models.ImageClassifier``.

    Raises:
        ValueError: If the backbone is another one, or has no classes. Use
            ``ImageClassifier`` for other backbones.
    """

    def __init__(self,
                 backbone: dict,
                 head: dict,
                 data_preprocessor: Optional[dict] = None,
                 **kwargs):
        if isinstance(backbone, dict):
            backbone = MODELS.build(backbone)
        if not isinstance(backbone, CLIPPromptBackbone):
            raise ValueError(
                'CLIPClassifier needs a CLIPPromptBackbone, got '
                f'{type(backbone).__name__}: set type=\'ImageClassifier\'.')
        if backbone.class_names is None:
            raise ValueError('CLIPClassifier needs classes in its backbone: '
                             'without them there is nothing to classify.')
        if isinstance(head, dict):
            known = dict(num_classes=len(backbone.class_names))
            kind = head['type']
            if isinstance(kind, str):
                kind = MMPRETRAIN_MODELS.get(kind)  # None: building it fails
            if kind and issubclass(kind, (MatchingHead, ZeroShotHead)):
                known['dim'] = backbone.embed_dim
            head = dict(known, **head)
        if data_preprocessor is None or isinstance(data_preprocessor, dict):
            data_preprocessor = dict(
                dict(mean=backbone.mean, std=backbone.std, to_rgb=True),
                **(data_preprocessor or {}))
        super().__init__(backbone=backbone, head=head,
                         data_preprocessor=data_preprocessor, **kwargs)
