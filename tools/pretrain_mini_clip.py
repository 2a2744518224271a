"""Pretrain the mini CLIPs on rendered scene-caption pairs.

Makes the files in ``trm_ml_mm/assets`` again. They ship with the package, so
nobody needs to run this. Looks and shapes in the pictures are uniform and
independent: the tower learns the 17 words, but nothing about the categories of
``trm_ml_mm.Scenes``, their frequency or their co-occurrence.

Plain contrastive learning on such captions learns colour and stops there. Three
things together make it learn shape too: pictures of one object before whole
scenes, grey pictures with captions that name only the shape, and two
bag-of-words heads (on the pooled trunk and on the embedding), which are dropped
at the end. Then training on scenes alone improves the features, but single
locations forget the words. A last stage with both kinds of picture repairs
that. ``mini_clip_wide.pth`` was made in two calls, about 80 minutes on one
core::

    --both-epochs 0 --out first.pth
    --init first.pth --crop-epochs 0 --scene-epochs 0

A real CLIP's joint space is narrow: its logit scale is 100, and its images and
texts lie in two cones. ``mini_clip.pth`` was made so from the wide one, in 15
minutes on one core::

    --init trm_ml_mm/assets/mini_clip_wide.pth --crop-epochs 0
    --scene-epochs 0 --both-epochs 1 --logit-scale 100 --cones 0.4 0.5 0.35
    --threads 1 --out trm_ml_mm/assets/mini_clip.pth

``mini_clip_vit.pth`` is a ViT, whose text tower starts from the wide one. It
was made in two calls, about 70 minutes on one core::

    --vit --init trm_ml_mm/assets/mini_clip_wide.pth --scene-epochs 4
    --both-epochs 0 --threads 1 --out first.pth
    --vit --init first.pth --crop-epochs 0 --scene-epochs 0
    --both-epochs 1.2 --threads 1 --out trm_ml_mm/assets/mini_clip_vit.pth
"""
import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import nn

from trm_ml_mm.datasets.scenes.rendering import (
    COLOURS,
    place_objects,
    render_scene,
)
from trm_ml_mm.labels.names import LOOKS, SHAPES
from trm_ml_mm.models.towers import encode_prompts, kept_positions
from trm_ml_mm.models.towers.mini import (
    MINI_CLIP_CONFIG,
    MINI_CLIPS,
    build_mini,
    pack_state,
    unpack_state,
)

WORDS = list(LOOKS) + list(SHAPES)
TEMPLATES = ('{}', 'a photo of {}', 'a picture of {}', 'a scene with {}',
             'a drawing of {}', 'there is {}', 'this is {}', 'one of {}')
MEAN, STD = 122.77, 68.5  # CLIP's, averaged over its channels
PRETRAIN_STREAM = 77  # keeps these pictures apart from every split of Scenes


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=MINI_CLIPS['mini-wide'])
    parser.add_argument('--init', type=Path, help='weights to go on from')
    parser.add_argument('--vit', action='store_true',
                        help='a ViT; its text tower starts from --init')
    parser.add_argument('--crops', type=int, default=36000)
    parser.add_argument('--crop-epochs', type=float, default=9)
    parser.add_argument('--crop-lr', type=float, default=1.5e-3)
    parser.add_argument('--scenes', type=int, default=36000)
    parser.add_argument('--scene-epochs', type=float, default=5)
    parser.add_argument('--scene-lr', type=float, default=7e-4)
    parser.add_argument('--both-epochs', type=float, default=6,
                        help='passes over the scenes, together with crops')
    parser.add_argument('--both-lr', type=float, default=1e-3)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--both-batch-size', type=int, default=64,
                        help='scenes in addition to --batch-size crops')
    parser.add_argument('--greyscale', type=float, default=0.15)
    parser.add_argument(
        '--logit-scale', type=float, help='keep the logit scale at this value, '
        'as real CLIPs end at 100 (default: learn it)')
    parser.add_argument(
        '--cones', type=float, nargs=3, metavar=('TEXT', 'IMAGE', 'GAP'),
        help='before training, add constants to all features so that two texts '
        'have about the cosine TEXT in common, two images IMAGE, and the two '
        'constants the cosine GAP')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def draw(stream, count, size, most):
    """Render ``count`` pictures of 1 to ``most`` objects, uniform over names.

    Returns images (N, 3, size, size) uint8 and, per image, the objects' names
    front to back as (look, shape) indices.
    """
    looks, shapes = list(LOOKS), list(SHAPES)
    images = np.empty((count, size, size, 3), np.uint8)
    names = []
    for i in range(count):
        rng = np.random.RandomState([PRETRAIN_STREAM, stream, i])
        k = rng.randint(1, most + 1)
        drawn = [(rng.randint(len(looks)), rng.randint(len(shapes)))
                 for _ in range(k)]
        objects = place_objects(
            rng, [(looks[a], shapes[b]) for a, b in drawn], size)
        images[i] = render_scene(
            rng, objects, size, clutter=10. * (size / 96)**2)
        names.append(drawn)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), names


def caption(rng, names, grey):
    """One sentence on a picture, its objects in random order."""
    looks, shapes = list(LOOKS), list(SHAPES)
    phrases, words = [], np.zeros(len(WORDS), np.float32)
    for j in rng.permutation(len(names))[:4]:
        a, b = names[j]
        words[len(looks) + b] = 1
        if grey and COLOURS[looks[a]] is not None:
            phrases.append(f'a {shapes[b]}')
        else:
            words[a] = 1
            phrases.append(f'a {looks[a]} {shapes[b]}')
    phrases = ' and '.join(phrases)
    template = TEMPLATES[rng.randint(len(TEMPLATES))]
    stop = '.' if rng.uniform() < 0.5 else ''
    return template.format(phrases) + stop, words


class Pictures:
    """Drawn pictures to take batches from."""

    def __init__(self, stream, count, size, most, batch_size):
        self.images, self.names = draw(stream, count, size, most)
        self.batch_size = batch_size
        seen = torch.zeros(len(WORDS))
        for drawn in self.names:
            for a, b in drawn:
                seen[a] += 1
                seen[len(LOOKS) + b] += 1
        self.idf = torch.log(seen.sum() / seen)

    def with_batch_size(self, batch_size):
        """The same pictures in other batches."""
        twin = copy.copy(self)
        twin.batch_size = batch_size
        return twin

    def batch(self, rng, tokenizer, greyscale):
        """Images, token ids, bags of words, and which captions are equal."""
        index = torch.from_numpy(
            rng.randint(0, len(self.images), self.batch_size))
        x = self.images[index].float()
        grey = rng.uniform(size=len(index)) < greyscale
        g = torch.from_numpy(grey)
        x[g] = x[g].mean(1, keepdim=True)
        flip = torch.from_numpy(rng.uniform(size=len(index)) < 0.5)
        x[flip] = x[flip].flip(3)
        texts, words = zip(*[caption(rng, self.names[i], c)
                             for i, c in zip(index.tolist(), grey)])
        x = (x - MEAN) / STD
        x = x.contiguous(memory_format=torch.channels_last)
        same = torch.tensor([[float(a == b) for b in texts] for a in texts])
        return (x, tokenizer(list(texts)), torch.from_numpy(np.stack(words)),
                same)


def used_tokens(tokenizer):
    """Ids of every word a caption can have, sorted: the end of text, which
    open_clip finds as the largest id, stays the largest."""
    prompts = [t.format('a b and c.') for t in TEMPLATES] + WORDS
    ids = {t for p in prompts for t in tokenizer.encode(p)}
    return torch.tensor(
        sorted(ids | {0, tokenizer.sot_token_id, tokenizer.eot_token_id}))


class SmallTokenizer:
    """CLIP's tokenizer with the words in use numbered from 0: a step then
    updates 40 embeddings and not 49,408."""

    def __init__(self):
        self.full = open_clip.SimpleTokenizer(
            context_length=MINI_CLIP_CONFIG['text_cfg']['context_length'])
        self.used = used_tokens(self.full)
        self.rank = torch.full((self.full.vocab_size, ), -1)
        self.rank[self.used] = torch.arange(len(self.used))

    def __call__(self, texts):
        return self.rank[self.full(texts)]


class Pretrainer(nn.Module):
    """The tower, with the two heads that are dropped afterwards."""

    def __init__(self, vocabulary, vit):
        super().__init__()
        self.clip = build_mini('mini-vit' if vit else 'mini-wide', vocabulary)
        self.is_vit = vit
        if vit:
            width = self.clip.visual.ln_post.normalized_shape[0]
        else:
            self.start_resnet()
            width = self.clip.visual.attnpool.v_proj.in_features
        self.trunk_words = nn.Linear(width, len(WORDS))
        self.embedding_words = nn.Linear(
            MINI_CLIP_CONFIG['embed_dim'], len(WORDS))

    def start_resnet(self):
        for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
            for block in getattr(self.clip.visual, stage):
                # With one block a stage there is nothing to skip to: zero
                # would cut the 3x3 convolutions off.
                nn.init.ones_(block.bn3.weight)

    def embed(self, x):
        """Global embedding and pooled trunk; a picture smaller than the
        tower's grid takes a random window of the position embedding."""
        visual = self.clip.visual
        if self.is_vit:
            x = visual.conv1(x)
            positions = window(visual.positional_embedding, x.shape[-1])
            x = x.flatten(2).transpose(1, 2)
            x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1)
            x = visual.transformer(visual.ln_pre(x + positions))
            return (visual.ln_post(x[:, 0]) @ visual.proj,
                    x[:, 1:].float().mean(1))
        x = visual.stem(x)
        for stage in (visual.layer1, visual.layer2, visual.layer3,
                      visual.layer4):
            x = stage(x)
        pooled = x.float().mean((2, 3))
        pool, side = visual.attnpool, x.shape[-1]
        pool = _WithPositions(pool, window(pool.positional_embedding, side))
        return pool(x), pooled

    def embed_text(self, tokens):
        end = tokens.argmax(1)
        tokens = tokens[:, :end.max() + 1]
        embedded = self.clip.token_embedding(tokens)
        # All captions begin with the start token.
        kept = kept_positions(end, 1, tokens.shape[1] - 1)
        return encode_prompts(self.clip, embedded[:1, :1],
                              embedded[None, :, 1:], end, kept)[0]

    def forward(self, x, tokens, words, same, idf):
        image, pooled = self.embed(x)
        image = image.float()
        text = self.embed_text(tokens).float()
        scale = self.clip.logit_scale.clamp(max=math.log(100)).exp()
        logits = scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
        target = same / same.sum(1, keepdim=True)  # equal captions: all right
        contrast = (F.cross_entropy(logits, target) +
                    F.cross_entropy(logits.T, target)) / 2
        bag = words * idf
        bag = bag / bag.sum(1, keepdim=True)
        heads = (F.cross_entropy(self.trunk_words(pooled), bag) +
                 F.cross_entropy(self.embedding_words(image), bag))
        return contrast + 0.5 * heads, contrast


def window(positions, side):
    """Position embeddings of a random window of side x side places, after
    that of the pooled token."""
    grid = math.isqrt(len(positions) - 1)
    r, c = np.random.randint(0, grid - side + 1, 2)
    found = positions[1:].view(grid, grid, -1)[r:r + side, c:c + side]
    return torch.cat([positions[:1], found.reshape(side * side, -1)])


class _WithPositions:
    """An attention pool called with other positions (no weight is copied)."""

    def __init__(self, pool, positions):
        self.pool, self.positions = pool, positions

    def __call__(self, x):
        return torch.func.functional_call(
            self.pool, {'positional_embedding': self.positions}, (x, ))


@torch.no_grad()
def add_cones(model, tokenizer, images, text, image, gap):
    """Shift text and image features by constants, as in a real CLIP, where all
    texts share one direction and all images another. Contrastive training
    neither needs these directions nor removes them."""
    clip = model.clip
    prompts = [f'a photo of a {a} {b}' for a in LOOKS for b in SHAPES]
    texts = model.embed_text(tokenizer(prompts))
    pooled = model.embed((images.float() - MEAN) / STD)[0]
    # Directions in which the features vary least.
    both = torch.cat([F.normalize(texts, dim=1), F.normalize(pooled, dim=1)])
    u, v = torch.linalg.eigh(both.T.cov()).eigenvectors.T[:2]
    v = gap * u + (1 - gap**2)**.5 * v
    shift = u * texts.norm(dim=1).mean() * (text / (1 - text))**.5
    # The bias of the last norm passes through the projection.
    clip.ln_final.bias += shift @ torch.linalg.pinv(clip.text_projection)
    shift = v * pooled.norm(dim=1).mean() * (image / (1 - image))**.5
    visual = clip.visual
    if model.is_vit:
        visual.ln_post.bias += shift @ torch.linalg.pinv(visual.proj)
    else:
        visual.attnpool.c_proj.bias += shift


@torch.no_grad()
def name_accuracy(model, images, names, tokenizer):
    """Accuracy on one-object pictures, among all 72 names."""
    model.eval()
    looks, shapes = list(LOOKS), list(SHAPES)
    prompts = [f'a photo of a {a} {b}' for a in looks for b in shapes]
    text = F.normalize(model.embed_text(tokenizer(prompts)), dim=1)
    hits = []
    for i in range(0, len(images), 500):
        x = (images[i:i + 500].float() - MEAN) / STD
        v = F.normalize(model.embed(x)[0], dim=1)
        best = (v @ text.T).argmax(1).tolist()
        hits += [b == n[0][0] * len(shapes) + n[0][1]
                 for b, n in zip(best, names[i:i + 500])]
    model.train()
    return float(np.mean(hits))


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.RandomState(args.seed)
    tokenizer = SmallTokenizer()
    model = Pretrainer(len(tokenizer.used), args.vit).train()
    model.to(memory_format=torch.channels_last)
    if args.init:
        packed = torch.load(args.init, weights_only=True)
        state = unpack_state(packed, tokenizer.full.vocab_size)
        state['token_embedding.weight'] = state['token_embedding.weight'][
            tokenizer.used]
        visual = model.clip.visual.state_dict(prefix='visual.')
        if args.vit and not set(visual) <= set(state):  # of a ResNet
            state = {**{k: v for k, v in state.items()
                        if not k.startswith('visual.')}, **visual}
        model.clip.load_state_dict(state)
    check = draw(9, 1500, 48, 1)
    if args.cones:
        model.eval()
        add_cones(model, tokenizer, check[0], *args.cones)
        model.train()
    if args.logit_scale:
        model.clip.logit_scale.requires_grad_(False).fill_(
            math.log(args.logit_scale))

    stages = []  # title, pictures, steps, learning rate
    crops = Pictures(0, args.crops, 48, 1, args.batch_size)
    stages.append(('crops', [crops], args.crop_epochs * args.crops
                   / args.batch_size, args.crop_lr))
    if args.scene_epochs or args.both_epochs:
        scenes = Pictures(1, args.scenes, 96, 6, args.batch_size)
        stages.append(('scenes', [scenes], args.scene_epochs * args.scenes
                       / args.batch_size, args.scene_lr))
        # Scenes improve the features, but single locations forget the words:
        # crops repair that.
        fewer = scenes.with_batch_size(args.both_batch_size)
        stages.append(('both', [crops, fewer], args.both_epochs * args.scenes
                       / args.both_batch_size, args.both_lr))
    for title, sources, steps, lr in stages:
        steps = int(steps)
        if not steps:
            continue
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=lr, weight_decay=0.05,
            betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, steps, pct_start=0.1)
        start, total = time.time(), 0.
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            for pictures in sources:
                x, tokens, words, same = pictures.batch(
                    rng, tokenizer, args.greyscale)
                with torch.autocast('cpu', torch.bfloat16):
                    loss, contrast = model(x, tokens, words, same,
                                           pictures.idf)
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimizer.step()
            schedule.step()
            total += contrast.item()
            if step % 250 == 0:
                accuracy = name_accuracy(model, *check, tokenizer)
                print(f'{title} {step}/{steps}: contrast {total / 250:.3f}, '
                      f'one-object accuracy {accuracy:.3f}, '
                      f'{(time.time() - start) / step:.2f} s a step',
                      flush=True)
                total = 0.
                save(model, tokenizer, args.out)
    save(model, tokenizer, args.out)
    print(f'saved {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)')


def save(model, tokenizer, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(pack_state(model.clip.state_dict(), tokenizer.used), out)


if __name__ == '__main__':
    main()
