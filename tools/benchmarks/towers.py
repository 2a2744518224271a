"""Every CLIP of open_clip: does it work here, and exactly?
python tools/benchmarks/towers.py
And what do they cost?
python tools/benchmarks/towers.py --table

Architectures of one family differ in their sizes only. Of each family, the
smallest one is built with random values, at its real size; its image embedding
and its text features are compared with open_clip's own programs. (`--build`
names others.) The rest belongs to a family, or is refused by name.

The table builds towers without memory (PyTorch's meta device), and counts what
the frozen image tower computes for one image: its dense map, at the size that a
config of 448 px gets. Only for the peak of memory it runs, each in a process of
its own.
"""
import argparse
import collections
import ctypes
import json
import subprocess
import sys

import open_clip
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.towers import built_size, image_tower
from trm_ml_mm.models.towers.loading import check_supported

WORDS = ['red car', 'fire hydrant', 'cat']
SMALLEST = ('RN50', 'ViT-B-32', 'convnext_base', 'convnext_large_d',
            'swin_base_patch4_window7_224', 'vit_medium_patch16_gap_256',
            'vit_relpos_medium_patch16_cls_224', 'EVA02-B-16', 'ViTamin-S',
            'MobileCLIP-S1', 'MobileCLIP-B', 'PE-Core-T-16-384',
            'coca_ViT-B-32')
TABLE = ('RN50', 'RN101', 'ViT-B-32', 'ViT-B-16', 'ViT-L-14-336',
         'ViT-B-16-SigLIP2-512', 'convnext_base_w', 'convnext_large_d',
         'EVA02-L-14-336', 'MobileCLIP2-S2')


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare the towers of open_clip with its own programs')
    parser.add_argument('--build', nargs='+', default=SMALLEST,
                        metavar='ARCH', help='default: one of each family')
    parser.add_argument('--table', nargs='*', metavar='ARCH',
                        help='what these towers cost, as Markdown; default: '
                        'those of configs/towers and a few more')
    parser.add_argument('--peak-of', help=argparse.SUPPRESS)
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
    backbone = CLIPPromptBackbone(arch, None, WORDS, pooled=True).eval()
    model = backbone.text.clip
    size = image_tower(model.visual, arch).image_size[0]
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


@torch.no_grad()
def peak_memory(arch: str) -> float:
    """MB that the dense map of one image needs beyond the weights. On a CPU
    it needs Linux with glibc."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    visual = open_clip.create_model(arch, device=device).eval().visual
    tower = image_tower(visual, arch)
    side = built_size(arch) or 448
    x = torch.randn(1, 3, side, side, device=device)
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        tower(x, pooled=False)
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def kilobytes(name: str) -> int:
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) for line in file
                        if line.startswith(name))

    # What building it has freed would be used again, and not be seen.
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # reset the peak
    before = kilobytes('VmRSS')
    tower(x, pooled=False)
    return (kilobytes('VmHWM') - before) / 1e3


@torch.no_grad()
def cost(arch: str) -> list:
    """A line of the table."""
    model = open_clip.create_model(arch, device='meta').eval()
    model.requires_grad_(False)
    image, whole = (sum(p.numel() for p in part.parameters())
                    for part in (model.visual, model))
    side = built_size(arch) or 448
    x = torch.empty(1, 3, side, side, device='meta')
    with FlopCounterMode(display=False) as counter:
        dense, _ = image_tower(model.visual, arch)(x, pooled=False)
    width, rows, columns = dense.shape[1:]
    peak = json.loads(subprocess.run(
        [sys.executable, sys.argv[0], '--peak-of', arch], check=True,
        capture_output=True, text=True).stdout.splitlines()[-1])
    return [arch, f'{image / 1e6:.0f}', f'{(whole - image) / 1e6:.0f}', side,
            f'{counter.get_total_flops() / 1e9:.0f}',
            f'{rows} x {columns} x {width}', f'{peak:.0f}']


def print_table(archs) -> None:
    print('| tower | image tower, M values | text tower, M values | px | '
          'GFLOP per image | map (H x W x D) | peak MB |')
    print('|---|---:|---:|---:|---:|---:|---:|')
    for arch in archs:
        print('|', ' | '.join(map(str, cost(arch))), '|', flush=True)


@command
def main():
    args = parse_args()
    if args.peak_of:
        print(peak_memory(args.peak_of))
        return
    if args.table is not None:
        print_table(args.table or TABLE)
        return
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
