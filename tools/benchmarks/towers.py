"""Every CLIP of open_clip: does it work here, and exactly?
python tools/benchmarks/towers.py

Architectures of one family differ in their sizes only. Of each family, the
smallest one is built with random values, at its real size; its image embedding
and its text features are compared with open_clip's own programs. (`--build`
names others.) The rest belongs to a family, or is refused by name.
"""
import argparse
import collections

import open_clip
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.towers.loading import check_supported

WORDS = ['red car', 'fire hydrant', 'cat']
SMALLEST = ('RN50', 'ViT-B-32', 'convnext_base', 'convnext_large_d',
            'swin_base_patch4_window7_224', 'vit_medium_patch16_gap_256',
            'vit_relpos_medium_patch16_cls_224', 'EVA02-B-16', 'ViTamin-S',
            'MobileCLIP-S1', 'MobileCLIP-B', 'PE-Core-T-16-384',
            'coca_ViT-B-32')


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare the towers of open_clip with its own programs')
    parser.add_argument('--build', nargs='+', default=SMALLEST,
                        metavar='ARCH', help='default: one of each family')
    return parse(parser)


def family_of(config: dict) -> str:
    """What tells how features are computed."""
    vision, text = config['vision_cfg'], config['text_cfg']
    if 'timm_model_name' in vision:
        image = vision['timm_model_name'].split('_')[0]
    elif isinstance(vision.get('layers'), list):
        image = 'ResNet'
    else:
        image = 'CoCa' if vision.get('attentional_pool') else 'ViT'
        image += ', mean pool' * (vision.get('pool_type') == 'avg')
    reads = 'both ways' if text.get('no_causal_mask') else 'causal'
    return f'{image}; text {reads}'


@torch.no_grad()
def differences(arch: str):
    """Shape of the dense map, and the largest differences of the normalised
    image embedding and text features from open_clip's own."""
    torch.manual_seed(0)
    size = open_clip.get_model_config(arch)['vision_cfg'].get('image_size',
                                                              224)
    backbone = CLIPPromptBackbone(arch, None, WORDS, image_size=size,
                                  pooled=True).eval()
    model = backbone.text.clip
    x = torch.randn(2, 3, size, size)
    feats = backbone(x)
    rows = open_clip.get_tokenizer(arch)(
        [f'a photo of a {word}.' for word in WORDS])
    pairs = ((feats.pooled, model.encode_image(x)),
             (feats.text[0], model.encode_text(rows)))
    return (tuple(feats.dense.shape[1:]), size, sum(
        p.numel() for p in model.parameters()), *(
            (F.normalize(own, dim=-1) - F.normalize(theirs, dim=-1)
             ).abs().max().item() for own, theirs in pairs))


@command
def main():
    args = parse_args()
    console = Console()
    families, refused = collections.defaultdict(list), []
    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch)
        try:
            check_supported(arch, config)
        except ValueError:
            refused.append(arch)
        else:
            families[family_of(config)].append(arch)
    table = Table('family', 'number', 'built', 'parameters', 'map (D, H, W)',
                  'image', 'text',
                  title="Difference from open_clip's own features")
    for family, archs in families.items():
        for arch in [a for a in archs if a in args.build] or ['-']:
            cells = [''] * 4
            if arch != '-':
                shape, size, count, *wrong = differences(arch)
                cells = [f'{count / 1e6:.0f} M', f'{shape} at {size} px',
                         *(f'{value:.0e}' for value in wrong)]
            table.add_row(family, str(len(archs)), arch, *cells)
    console.print(table)
    console.print(f'{sum(map(len, families.values()))} of '
                  f'{len(open_clip.list_models())} architectures work; '
                  f'{len(refused)} need a tokenizer of Hugging Face, and are '
                  f'refused by name: {", ".join(refused)}', soft_wrap=True)


if __name__ == '__main__':
    main()
