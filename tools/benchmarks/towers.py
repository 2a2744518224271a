"""Every CLIP of open_clip: does it work here, and exactly?
python tools/benchmarks/towers.py
And what do they cost?
python tools/benchmarks/towers.py --table

Architectures of one family differ in their sizes only. Of each family, the
smallest one is built with random values, at its real size (up to 1.9 billion
values); its image embedding and its text features are compared with open_clip's
own programs. (`--build` names others.) The rest belongs to a family.

Towers that read by a tokenizer of Hugging Face get a small made one, and text
models of Hugging Face a small made configuration: theirs are downloads.

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
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
import torch.nn.functional as F
from made_tokenizers import kind_of, make_text_config, make_tokenizer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from trm_ml_mm.cli.arguments import command, parse
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.towers import built_size, image_tower

WORDS = ['red car', 'fire hydrant', 'cat']
SMALLEST = ('RN50', 'ViT-B-32', 'convnext_base', 'convnext_large_d',
            'swin_base_patch4_window7_224', 'vit_medium_patch16_gap_256',
            'vit_relpos_medium_patch16_cls_224', 'EVA02-B-16', 'ViTamin-S',
            'MobileCLIP-S1', 'MobileCLIP-B', 'PE-Core-T-16-384',
            'coca_ViT-B-32', 'ViT-B-16-SigLIP', 'ViT-B-32-SigLIP2-256',
            'ViT-L-14-CLIPA', 'ViT-L-14-worldwide', 'roberta-ViT-B-32',
            'xlm-roberta-base-ViT-B-32', 'mt5-base-ViT-B-32',
            'nllb-clip-base', 'nllb-clip-base-siglip',
            'coca_roberta-ViT-B-32', 'MobileCLIP2-L-14', 'EVA01-g-14',
            'ViT-H-14-worldwide')
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
    other = text.get('hf_model_name') or text.get('hf_tokenizer_name')
    if text.get('hf_model_name'):
        reads = 'of ' + other.split('/')[-1].split('-')[0]
    else:
        reads = 'both ways' if text.get('no_causal_mask') else 'causal'
        reads += f', {kind_of(other)} tokens' if other else ''
    return f'{image}; text {reads}'


def with_made_files(arch: str, folder: Path) -> str:
    """An architecture with made files in place of downloads, by a new name."""
    config = open_clip.get_model_config(arch)
    text = config['text_cfg']
    name = text.get('hf_tokenizer_name')
    if not name:
        return arch
    make_tokenizer(kind_of(name), folder)
    text['hf_tokenizer_name'] = str(folder)
    if 'hf_model_name' in text:
        make_text_config(name, folder, dict(vocab=1000, width=512, layers=4,
                                            heads=8))
        text['hf_model_name'] = str(folder)
    path = folder / f'made-{arch}.json'
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return path.stem


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

    # What was freed while the tower was built counts as free.
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
    console = Console(width=110)
    families, foreign = collections.defaultdict(list), 0
    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch)
        families[family_of(config)].append(arch)
        foreign += 'hf_tokenizer_name' in config['text_cfg']
    table = Table('family', 'number', 'built', 'parameters', 'map (D, H, W)',
                  'image', 'text',
                  title="Difference from open_clip's own features")
    for family, archs in families.items():
        for arch in [a for a in archs if a in args.build] or ['-']:
            cells = [''] * 4
            if arch != '-':
                with TemporaryDirectory() as folder:
                    shape, size, count, *wrong = differences(
                        with_made_files(arch, Path(folder)))
                cells = [f'{count / 1e6:.0f} M', f'{shape} at {size} px',
                         *(f'{value:.0e}' for value in wrong)]
            table.add_row(family, str(len(archs)), arch, *cells)
    console.print(table)
    console.print(f'{sum(map(len, families.values()))} architectures in '
                  f'{len(families)} families. {foreign} of them read by a '
                  'tokenizer of Hugging Face, and need transformers.',
                  soft_wrap=True)


if __name__ == '__main__':
    main()
