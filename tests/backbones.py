"""The head on backbones of MMPretrain and TIMM: one training step and one
prediction each.

    python tests/backbones.py     # the table of docs/own_project.md
"""
import warnings
from typing import NamedTuple, Optional

import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import trm_ml_mm.models  # noqa: F401
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

NO_PLACES = 'one vector per image'


class Case(NamedTuple):
    """A backbone, and what the head needs to stand on it."""

    backbone: dict
    channels: int
    size: int = 64
    extra_tokens: Optional[int] = None
    refusal: Optional[str] = None  # part of the sentence; None: it works
    remedy: str = ''  # of what is refused

    @property
    def name(self) -> str:
        named = dict(self.backbone)
        kind = named.pop('type')
        if kind == 'TIMMBackbone':
            kind = f'TIMM {named.pop("model_name")}'
        return kind


def case(type, channels, size=64, extra_tokens=None, refusal=None, remedy='',
         **options):
    return Case(dict(type=type, **options), channels, size, extra_tokens,
                refusal, remedy)


def timm(name, *args, **options):
    return case('TIMMBackbone', *args, model_name=name, **options)


FEATMAP = dict(out_type='featmap')
CASES = [
    case('AlexNet', 256),
    case('VGG', 512, depth=11),
    case('ResNet', 512, depth=18),
    case('ResNet', 2048, depth=18, refusal='set in_channels to 512',
         remedy='`in_channels=512`'),
    case('ResNeXt', 2048, depth=50),
    case('SEResNet', 2048, depth=50),
    case('RegNet', 384, arch='regnetx_400mf'),
    case('DenseNet', 1024, arch='121'),
    case('MobileNetV2', 1280),
    case('MobileNetV3', 576, arch='small'),
    case('ShuffleNetV2', 1024),
    case('EfficientNet', 1280, arch='b0'),
    case('EfficientNetV2', 1280, arch='b0'),
    case('Res2Net', 2048, depth=50),
    case('ResNeSt', 2048, depth=50),
    case('HRNet', 144, arch='w18'),
    case('RepVGG', 1280, arch='A0'),
    case('CSPDarkNet', 1024, depth=53),
    case('MobileOne', 1024, arch='s0'),
    case('ConvNeXt', 320, arch='atto', gap_before_final_norm=False),
    case('ConvNeXt', 320, arch='atto', refusal=NO_PLACES,
         remedy='`gap_before_final_norm=False`'),
    case('EdgeNeXt', 168, arch='xxsmall', gap_before_final_norm=False),
    case('HorNet', 512, arch='tiny', gap_before_final_norm=False),
    case('VAN', 256, arch='tiny'),
    case('PoolFormer', 512, arch='s12'),
    case('MobileViT', 320, arch='xx_small'),
    case('TinyViT', 320, arch='5m', img_size=(64, 64), size=64,
         gap_before_final_norm=False),
    case('EfficientFormer', 448, 224, arch='l1', reshape_last_feat=True),
    case('EfficientFormer', 448, 224, arch='l1', refusal='extra_tokens',
         remedy='`reshape_last_feat=True`, or `extra_tokens=0`'),
    case('LeViT', 384, 224, arch='128s'),
    case('SwinTransformer', 768, arch='tiny', img_size=64,
         pad_small_map=True),
    case('SwinTransformerV2', 768, 256, arch='tiny', img_size=256),
    case('DaViT', 768, arch='tiny', pad_small_map=True),
    case('PCPVT', 512, arch='small'),
    case('SVT', 512, arch='small'),
    case('MViT', 768, arch='tiny'),
    case('VisionTransformer', 192, arch='deit-tiny', img_size=64, **FEATMAP),
    case('VisionTransformer', 192, arch='deit-tiny', img_size=64,
         out_type='raw', extra_tokens=1),
    case('VisionTransformer', 192, arch='deit-tiny', img_size=64,
         out_type='raw', refusal='set extra_tokens', remedy='`extra_tokens=1`'),
    case('VisionTransformer', 192, arch='deit-tiny', img_size=64,
         refusal=NO_PLACES, remedy="`out_type='featmap'`"),
    case('DistilledVisionTransformer', 192, arch='deit-tiny', img_size=64,
         **FEATMAP),
    case('DistilledVisionTransformer', 192, arch='deit-tiny', img_size=64,
         refusal="out_type='featmap'", remedy="`out_type='featmap'`"),
    case('DeiT3', 384, arch='s', img_size=64, **FEATMAP),
    case('BEiTViT', 768, arch='base', img_size=64, **FEATMAP),
    case('T2T_ViT', 384, img_size=64, **FEATMAP),
    case('ViTEVA02', 192, 56, arch='t', img_size=56, **FEATMAP),
    case('ViTSAM', 256, arch='base', img_size=64),
    case('HiViT', 384, 224, arch='tiny', img_size=224),
    case('XCiT', 768, img_size=64, **FEATMAP),
    case('MlpMixer', 512, arch='s', img_size=64, extra_tokens=0),
    case('MlpMixer', 512, arch='s', img_size=64, refusal='0 for a mixer',
         remedy='`extra_tokens=0`'),
    case('ConvMixer', 768, arch='768/32'),
    case('Conformer', 384, arch='tiny', refusal='2 features',
         remedy='none, it pools itself'),
    case('TNT', 384, 224, arch='s', refusal=NO_PLACES,
         remedy='none, it pools itself'),
    timm('resnet18', 512),
    timm('resnet18', 512, features_only=True),
    timm('efficientnet_b0', 1280),
    timm('convnext_atto', 320),
    timm('swin_tiny_patch4_window7_224', 768, 224),
    timm('vit_tiny_patch16_224', 192, img_size=64, extra_tokens=1),
    timm('vit_tiny_patch16_224', 192, img_size=64, refusal='1 for most ViTs',
         remedy='`extra_tokens=1`'),
    timm('vit_small_patch14_reg4_dinov2', 384, 56, img_size=56,
         extra_tokens=5),
    timm('mixer_s32_224', 512, 224, extra_tokens=0),
    timm('deit_tiny_distilled_patch16_224', 192, img_size=64,
         refusal=NO_PLACES, remedy='`deit3` and `vit`, which give tokens'),
]


def build(case: Case, head: Optional[dict] = None):
    """A classifier on the case's backbone."""
    init_default_scope('mmpretrain')
    return MODELS.build(dict(
        type='ImageClassifier',
        backbone=dict(case.backbone),
        head={**dict(
            type='trm_ml_mm.TextRegionMatchingHead', num_classes=3,
            in_channels=case.channels, extra_tokens=case.extra_tokens,
            loss=dict(type='trm_ml_mm.PartialAsymmetricLoss'),
            text=dict(classes=['red circle', 'blue star', 'green heart'],
                      arch='mini')), **(head or {})}))


def step(model, size: int):
    """One training step and a prediction: (images' scores, share of the
    backbone's parameters that have a gradient)."""
    images = torch.rand(2, 3, size, size)
    samples = [DataSample().set_gt_score(torch.tensor(labels))
               for labels in ([PRESENT, ABSENT, UNKNOWN],
                              [UNKNOWN, PRESENT, ABSENT])]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    # The matching starts as CLIP knows it, so that at first the MLP's zero
    # layer passes no gradient: two steps.
    for _ in range(2):
        optimizer.zero_grad()
        losses = model(images, samples, mode='loss')
        sum(value for name, value in losses.items()
            if 'loss' in name).backward()
        optimizer.step()
    learned = [parameter.grad is not None and bool(parameter.grad.any())
               for parameter in model.backbone.parameters()]
    model.eval()
    with torch.no_grad():
        predicted = model(images, samples, mode='predict')
    return (torch.stack([sample.pred_score for sample in predicted]),
            sum(learned) / len(learned))


def outcome(case: Case) -> str:
    """'works', or why not."""
    try:
        scores, _ = step(build(case), case.size)
    except ValueError as error:
        return f'refused: {error}'
    return 'works' if scores.isfinite().all() else 'not finite'


def row(case: Case, works: bool) -> str:
    """Of the table."""
    options = ', '.join(f'{name}={value!r}'
                        for name, value in case.backbone.items()
                        if name not in ('type', 'model_name'))
    head = f'in_channels={case.channels}'
    if case.extra_tokens is not None:
        head += f', extra_tokens={case.extra_tokens}'
    result = 'works' if works else f'refused; remedy: {case.remedy}'
    return (f'| {case.name} | {f"`{options}`" if options else ""} | '
            f'{case.size} | `{head}` | {result} |')


def main():
    warnings.filterwarnings('ignore')
    print('| backbone | its options | pixels | options of the head | result |')
    print('|---|---|---:|---|---|')
    for case in CASES:
        found = outcome(case)
        expected = 'works' if case.refusal is None else case.refusal
        if expected not in found:
            raise SystemExit(f'{case}: {found}')
        print(row(case, found == 'works'), flush=True)


if __name__ == '__main__':
    main()
