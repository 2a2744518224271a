"""Compare a training step with the bare forward pass of the frozen tower:
python tools/benchmarks/step.py --arch RN101 --batch-size 32

Only ratios within one run are meaningful: all variants take turns, round after
round, and the fastest round of each counts. Weights are random; speed does not
depend on them."""
import argparse
import json
import platform
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from trm_ml_mm.datasets import COCO_CLASSES
from trm_ml_mm.models import CLIPFeatures, CLIPPromptBackbone
from trm_ml_mm.models.losses import PartialAsymmetricLoss
from trm_ml_mm.models.region import as_locations
from trm_ml_mm.models.text import PromptLearner
from trm_ml_mm.models.towers import built_size, resnet_dense_map
from trm_ml_mm.registry import MODELS

CONFIG = 'configs/trm_ml_coco.py'
PAIR = dict(context=16, pair=True, class_specific=True)
PARTS = ('visual', 'text', 'head', 'backward', 'optimiser')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--arch', default='RN101')
    parser.add_argument(
        '--image-size', type=int,
        help='default: the one the tower is built for, or 448')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--classes', type=int, default=80)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--variants', nargs='+', help='default: all')
    parser.add_argument(
        '--bf16', action='store_true', help='autocast to bfloat16')
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile the towers')
    parser.add_argument('--tower-dtype', default='float32')
    parser.add_argument(
        '--no-memory', action='store_true',
        help='leave out peak memory, which takes a process per variant')
    parser.add_argument('--json', help='also write the figures here')
    parser.add_argument('--peak-of', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.image_size = args.image_size or built_size(args.arch) or 448
    args.variants = args.variants or [
        name for name in VARIANTS
        if name != 'forward: contiguous layout' or args.arch.startswith('RN')]
    return args


class Bench:
    """One batch of noise, and what steps on it are made of."""

    def __init__(self, args):
        self.args = args
        self.device = torch.device(
            'cuda' if torch.cuda.is_available() else 'cpu')
        torch.manual_seed(0)
        self.names = (list(COCO_CLASSES) * 4)[:args.classes]
        self.names = [f'{n} {i // 80}' if i >= 80 else n
                      for i, n in enumerate(self.names)]
        size = args.image_size
        self.images = torch.randn(args.batch_size, 3, size, size,
                                  device=self.device)
        self.targets = torch.randint(
            -1, 2, (args.batch_size, args.classes)).float().to(self.device)

    def backbone(self, **options):
        backbone = CLIPPromptBackbone(
            self.args.arch, None, self.names, self.args.image_size,
            align=True, **{
                'prompt': dict(learnable=False),  # as in the shipped config
                'compile': self.args.compile,
                'tower_dtype': self.args.tower_dtype, **options})
        return backbone.to(self.device)

    def head(self, dim):
        """The shipped config's, with pseudo-labels on."""
        options = Config.fromfile(CONFIG).model.head
        options.update(dim=dim, num_classes=self.args.classes)
        options.prototypes.warmup_images = 0
        return MODELS.build(options).to(self.device)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16,
                              enabled=self.args.bf16)


def bare_forward(**options):
    """The floor: the frozen visual tower alone, by open_clip's own program.
    That of a ResNet takes one size only; its dense map is its floor."""

    def build(bench):
        backbone = bench.backbone(**options)
        own = backbone.visual
        if hasattr(own, 'attnpool') or options or bench.args.compile:
            def own(images):
                backbone.encode_image(images, pooled=False)

        @torch.no_grad()
        def step(mark):
            with bench.autocast():
                own(bench.images)
            mark('visual')

        return step

    return build


def inference(bench):
    """Images to scores."""
    backbone = bench.backbone().eval()
    head = bench.head(backbone.embed_dim).eval()

    @torch.no_grad()
    def step(mark):
        with bench.autocast():
            head(backbone(bench.images))

    return step


def training(**options):
    """A whole training step of ours with these options of the backbone."""

    def build(bench):
        backbone = bench.backbone(**options).train()
        head = bench.head(backbone.embed_dim).train()
        learned = [*backbone.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(learned, 1e-3)

        def step(mark):
            with bench.autocast():
                dense, _ = backbone.encode_image(bench.images, pooled=False)
                mark('visual')
                text = backbone.text()
                zero_shot = backbone.text.zero_shot_text()
                mark('text')
                feats = CLIPFeatures((dense, ), text, zero_shot,
                                     backbone.text.text_mean())
                head.calibrate(feats)
                output = head.match(feats)
            losses = head.losses(output, bench.targets)
            mark('head')
            sum(v for k, v in losses.items() if 'loss' in k).backward()
            mark('backward')
            torch.nn.utils.clip_grad_norm_(learned, 5.)
            optimizer.step()
            optimizer.zero_grad()
            mark('optimiser')

        return step

    return build


def dualcoop_style(bench):
    """Text-pixel prompt tuning as arXiv 2206.09541 describes it: a positive
    and a negative prompt of 16 tokens per class, all 77 positions of the text
    tower, every location of the map matched with every prompt."""
    backbone = bench.backbone().train()
    prompt = PromptLearner(backbone.text.text_tower, backbone.text.words,
                           **PAIR).to(bench.device)
    optimizer = torch.optim.SGD(prompt.parameters(), 1e-3)
    loss = PartialAsymmetricLoss()

    def step(mark):
        with bench.autocast():
            dense, _ = backbone.encode_image(bench.images, pooled=False)
            locations = F.normalize(dense.flatten(2).float(), dim=1)
            mark('visual')
            text = plain_text(backbone.text, prompt).float()
            text = F.normalize(text, dim=-1)
            mark('text')
            cosine = 20 * torch.einsum('bdl,pcd->pbcl', locations, text)
            weights = cosine[0].softmax(-1)
            logits = (cosine * weights).sum(-1)
            value = loss(logits[0] - logits[1], bench.targets)
            mark('head')
        value.backward()
        mark('backward')
        optimizer.step()
        optimizer.zero_grad()
        mark('optimiser')

    return step


def plain_text(text, prompt, positions=None):
    """Whole prompts over this many positions (None: all), nothing shared. A
    tower that sees what is behind an end token always reads all."""
    prefix, suffix, end, *_ = prompt()
    if not text.text_tower.can_be_cut:
        return text.text_tower(*prompt())
    clip = getattr(text.clip, 'text', text.clip)
    groups, classes = suffix.shape[:2]
    whole = torch.cat([prefix[:, None].expand(-1, classes, -1, -1), suffix], 2)
    positions = positions or clip.context_length
    x = F.pad(whole, (0, 0, 0, positions - whole.shape[2])).flatten(0, 1)
    x = x + clip.positional_embedding[:positions]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:positions, :positions])
    x = x[torch.arange(len(x), device=x.device), end.repeat(groups)]
    x = clip.ln_final(x) @ clip.text_projection
    return x.unflatten(0, (groups, classes))


def text_only(encode, **options):
    """Text features and their gradients, nothing else."""

    def build(bench):
        text = bench.backbone(prompt=options).text.train()

        def step(mark):
            with bench.autocast():
                features = encode(text)
            if features.requires_grad:
                features.sum().backward()

        return step

    return build


def cut(text):
    prefix, suffix, *_ = text.prompt()
    return plain_text(text, text.prompt,
                      prefix.shape[1] + suffix.shape[2])


def two_batches(text):
    """The positive and the negative prompts one after the other."""
    prefix, suffix, *rest = text.prompt()
    return torch.cat([text.text_tower(prefix[i:i + 1], suffix[i:i + 1], *rest)
                      for i in (0, 1)])


@torch.no_grad()
def contiguous_forward(bench):
    """The bare forward pass of a ResNet tower without channels_last."""
    visual = bench.backbone().visual.to(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def step(mark):
        x = bench.images
        for stage in (visual.stem, visual.layer1, visual.layer2,
                      visual.layer3, visual.layer4):
            x = stage(x)
        resnet_dense_map(visual, x)

    return step


def head_only(match):
    """The head's cross-attention and its gradients on a given map."""

    def build(bench):
        backbone = bench.backbone()
        side = bench.args.image_size // 32
        dense = torch.randn(bench.args.batch_size, backbone.embed_dim, side,
                            side, device=bench.device)
        zero_shot_text = backbone.text.zero_shot_text()
        region = bench.head(backbone.embed_dim).region

        def step(mark):
            match(region, dense, zero_shot_text).sum().backward()

        return step

    return build


def project_locations(region, dense, zero_shot_text):
    """Cross-attention as papers write it: keys and values of locations."""
    locations = F.normalize(as_locations(dense), dim=-1)
    queries = region.query_proj(zero_shot_text + region.query_offset)
    keys = region.key_proj(locations)
    saliency = (queries @ keys.transpose(1, 2)).softmax(-1)
    attended = saliency @ region.value_proj(locations)
    return saliency @ locations + region.mlp(attended)


VARIANTS = {
    'bare forward': bare_forward(),
    'inference': inference,
    'training': training(),
    'training, learned prompts': training(prompt=dict(learnable=True)),
    'training, pair per class': training(prompt=PAIR),
    'DualCoOp-style training': dualcoop_style,
    'forward: contiguous layout': contiguous_forward,
    'forward: bf16 tower': bare_forward(tower_dtype='bfloat16'),
    'forward: compiled': bare_forward(compile=True),
    'head: every location projected': head_only(project_locations),
    'head: categories projected': head_only(
        lambda region, dense, text: region(dense, text).query),
    'text: 77 positions': text_only(lambda t: plain_text(t, t.prompt)),
    'text: cut to need': text_only(cut),
    'text: cut, prefix shared, no padding': text_only(lambda t: t()),
    'text: fixed prompts, kept': text_only(lambda t: t(), learnable=False),
    'text: pair per class, 77 positions': text_only(
        lambda t: plain_text(t, t.prompt), **PAIR),
    'text: pair per class, cut, two batches': text_only(two_batches, **PAIR),
    'text: pair per class, cut, one batch': text_only(lambda t: t(), **PAIR),
}


def timed(step, device):
    """Seconds of one step, whole and by part."""
    parts = {}
    last = start = time.perf_counter()

    def mark(name):
        nonlocal last
        if device.type == 'cuda':
            torch.cuda.synchronize()
        now = time.perf_counter()
        parts[name] = parts.get(name, 0.) + now - last
        last = now

    step(mark)
    mark('rest')
    return last - start, parts


def peak_memory(args):
    """MB that a variant needs beyond its weights: the peak over two steps
    minus what was in use before them."""
    bench = Bench(args)
    step = VARIANTS[args.peak_of](bench)
    if bench.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(2):
            step(lambda name: None)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # reset the peak
    before = status('VmRSS')
    for _ in range(2):
        step(lambda name: None)
    return (status('VmHWM') - before) / 1e3


def status(name):
    """kB of a line of /proc/self/status."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file
                    if line.startswith(name))


def measure(args):
    bench = Bench(args)
    steps = {name: VARIANTS[name](bench) for name in args.variants}
    for step in steps.values():
        step(lambda name: None)  # warm up
    best = {}
    for _ in range(args.rounds):
        for name, step in steps.items():
            found = timed(step, bench.device)
            if name not in best or found[0] < best[name][0]:
                best[name] = found
    rows = [dict(variant=name, seconds=whole, parts=parts)
            for name, (whole, parts) in best.items()]
    del steps
    for row in rows:
        if not args.no_memory and ':' not in row['variant']:
            out = subprocess.run(
                [sys.executable, *sys.argv, '--peak-of', row['variant']],
                check=True, capture_output=True, text=True).stdout
            row['peak_mb'] = float(out.split()[-1])
    return rows


def show(rows, args):
    floor = next((r['seconds'] for r in rows
                  if r['variant'] == 'bare forward'), None)
    table = Table(
        'variant', *(['of bare'] if floor else []), 'images/s', *PARTS,
        *(['peak MB'] if any('peak_mb' in r for r in rows) else []))
    for row in rows:
        cells = [f'{row["seconds"] / floor:.3f}'] if floor else []
        cells.append(f'{args.batch_size / row["seconds"]:.2f}')
        for part in PARTS:
            ratio = row['parts'].get(part)
            cells.append('' if ratio is None else
                         f'{ratio / (floor or row["seconds"]):.3f}')
        cells.append(f'{row["peak_mb"]:.0f}' if 'peak_mb' in row else '')
        table.add_row(row['variant'], *cells[:len(table.columns) - 1])
    device = (torch.cuda.get_device_name() if torch.cuda.is_available()
              else f'{platform.machine()}, {torch.get_num_threads()} threads')
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f'{args.arch}, {args.image_size} px, batch {args.batch_size}, '
        f'{args.classes} classes, {"bf16" if args.bf16 else "fp32"}'
        f'{", compiled" if args.compile else ""}; {device}; torch '
        f'{torch.__version__}; parts as ratios of the bare forward',
        highlight=False, soft_wrap=True)
    console.print(table)


def main():
    args = parse_args()
    if args.peak_of:
        print(peak_memory(args))
        return
    rows = measure(args)
    show(rows, args)
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(dict(vars(args), rows=rows), file, indent=1)


if __name__ == '__main__':
    main()
