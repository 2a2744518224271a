"""Every dense map against a plain loop over locations and heads."""
import json
from copy import deepcopy
from functools import cache

import open_clip
import pytest
import torch
import torch.nn.functional as F
from tests_support import ROOT
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import nn

from trm_ml_mm.engine import load_config
from trm_ml_mm.engine.description import describe
from trm_ml_mm.features import CacheFiller, use_cache
from trm_ml_mm.features.fill import tower_name
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.dense_scores import score_dense_map
from trm_ml_mm.models.towers import (
    gaussian_window,
    image_tower,
    save_random_weights,
)
from trm_ml_mm.models.towers.dense import REGION_SCALE
from trm_ml_mm.models.towers.last_block import NACLIP_STD
from trm_ml_mm.models.towers.windows import window_starts

TEXT = dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)
VIT = dict(layers=2, width=64, head_width=32, patch_size=16, image_size=64)


def trunk(name, size, pool, proj=None):
    return dict(timm_model_name=name, timm_model_pretrained=False,
                timm_pool=pool, timm_proj=proj, image_size=size)


BLOCKS = ('value', 'sclip', 'clearclip', 'naclip')
FAMILIES = {  # configs, and the dense maps that a tower can make
    'resnet': (dict(layers=[1, 1, 1, 1], width=8, image_size=128), {},
               ('value', 'region')),
    'vit': (VIT, {}, (*BLOCKS, 'heads')),
    'vit-scaled': (dict(VIT, ls_init_value=.5, pool_type='avg',
                        final_ln_after_pool=True), {}, (*BLOCKS, 'heads')),
    'coca': (dict(VIT, attentional_pool=True, attn_pooler_heads=2,
                  output_tokens=True),
             dict(custom_text=True, multimodal_cfg=dict(
                 TEXT, attn_pooler_heads=2)), (*BLOCKS, 'heads', 'region')),
    # SigLIP's trunk, with CLIP's text.
    'siglip': (trunk('vit_test_siglip', 64, 'map', 'none'),
               dict(custom_text=True), ('heads', *BLOCKS, 'region')),
    'eva02': (trunk('eva02_tiny_patch14_224', 224, 'token'),
              dict(custom_text=True), ('heads', *BLOCKS)),
    'pe-core': (trunk('vit_pe_core_tiny_patch16_384', 384, 'map'),
                dict(custom_text=True), ('heads', *BLOCKS, 'region')),
    'convnext': (trunk('convnext_atto', 64, '', 'linear'), {}, ('heads', )),
}
SMALL = {'eva02': 56, 'pe-core': 64}  # px: they are built for more
CASES = [(family, dense) for family, (*_, options) in FAMILIES.items()
         for dense in options]


@pytest.fixture(scope='module', autouse=True)
def small_siglip():
    """SigLIP's kind of trunk, with two blocks."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    @timm.models.register_model
    def vit_test_siglip(pretrained=False, **options):
        options.pop('pretrained_cfg', None)
        options.pop('pretrained_cfg_overlay', None)
        options.pop('cache_dir', None)
        return VisionTransformer(img_size=64, patch_size=16, embed_dim=32,
                                 depth=2, num_heads=2, class_token=False,
                                 **options)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('arch')


@pytest.fixture(scope='module')
def build(folder):
    """Of a family and options, a backbone; the weights are always the same."""

    @cache
    def weights(family):
        vision, more, _ = FAMILIES[family]
        text = dict(TEXT, embed_cls=True, output_tokens=True) if (
            family == 'coca') else TEXT
        path = folder / f'dense-{family}.json'
        path.write_text(json.dumps(dict(
            embed_dim=32, vision_cfg=vision, text_cfg=text, **more)))
        open_clip.add_model_config(path)
        if family == 'resnet':  # with BatchNorm that tells images apart
            save_random_weights(path.stem, str(folder / 'resnet.pt'))
            return path.stem, str(folder / 'resnet.pt')
        torch.manual_seed(1)
        model = open_clip.create_model(path.stem)
        for name, value in model.named_parameters():
            if value.dim() > 1:
                nn.init.normal_(value, std=value[0].numel()**-.5)
            elif name.endswith('bias'):
                nn.init.normal_(value, std=.1)
        torch.save(model.state_dict(), folder / f'{family}.pt')
        return path.stem, str(folder / f'{family}.pt')

    def found(family, size=None, **options):
        arch, path = weights(family)
        return CLIPPromptBackbone(
            arch, path, image_size=size or side(family), quick_gelu=False,
            **options).eval()

    return found


def side(family):
    return SMALL.get(family, FAMILIES[family][0]['image_size'])


# Plain loops


def heads_of(block):
    """Query, key and value of each head: functions of the normed tokens."""
    attn = block.attn
    if isinstance(attn, nn.MultiheadAttention):
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
    elif attn.qkv is None:
        weight = torch.cat([attn.q_proj.weight, attn.k_proj.weight,
                            attn.v_proj.weight])
        bias = torch.cat([attn.q_proj.bias,
                          torch.zeros(len(attn.k_proj.weight)),
                          attn.v_proj.bias])
    else:
        weight, bias = attn.qkv.weight, attn.qkv.bias
        if getattr(attn, 'q_bias', None) is not None:
            bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    width = len(weight) // 3
    d = width // attn.num_heads
    for start in range(0, width, d):
        rows = [slice(k * width + start, k * width + start + d)
                for k in range(3)]
        yield [(weight[r], bias[r]) for r in rows]


def looped_block(block, x, dense, grid, rope):
    """The last block of one image, ``(L, width)``, location by location."""
    attn = block.attn
    normed = (block.ln_1 if hasattr(block, 'ln_1') else block.norm1)(x)
    found = torch.zeros(len(x), 0)
    for parts in heads_of(block):
        q, k, v = (normed @ weight.T + bias for weight, bias in parts)
        if hasattr(attn, 'q_norm'):
            q, k = attn.q_norm(q), attn.k_norm(k)
        if rope is not None:
            half = getattr(attn, 'rotate_half', False)
            q, k = (apply_rot_embed_cat(t[None, None], rope, half=half)[0, 0]
                    for t in (q, k))
        rows = []
        for i in range(len(x)):
            scale = q.shape[1]**-.5
            by_query = torch.stack([q[i] @ q[j] for j in range(len(x))])
            by_key = torch.stack([k[i] @ k[j] for j in range(len(x))])
            window = torch.tensor([
                -((i // grid[1] - j // grid[1])**2
                  + (i % grid[1] - j % grid[1])**2) / (2 * NACLIP_STD**2)
                for j in range(len(x))]).exp()
            weights = {
                'value': torch.eye(len(x))[i],
                'sclip': (by_query * scale).softmax(0)
                + (by_key * scale).softmax(0),
                'clearclip': (by_query * scale).softmax(0),
                'naclip': (by_key * scale + window).softmax(0)}[dense]
            rows.append(sum(w * row for w, row in zip(weights, v)))
        found = torch.cat([found, torch.stack(rows)], 1)
    if hasattr(block, 'ln_1'):
        branch = block.ls_1(attn.out_proj(found))
        rest = [block.ln_2, block.mlp, block.ls_2]
    else:
        branch = attn.proj(attn.norm(found))
        rest = [block.norm2, block.mlp]
        if hasattr(block, 'ls1'):
            branch = block.ls1(branch)
            rest.append(block.ls2)
        elif block.gamma_1 is not None:
            branch = branch * block.gamma_1
            rest.append(lambda y: y * block.gamma_2)
    if dense in ('clearclip', 'naclip'):
        return branch
    x = x + branch
    return x + run(rest, x)


def run(steps, x):
    for step in steps:
        x = step(x)
    return x


def averaged(x):
    """Regions of one image's tokens, ``(L, width)``, one after the other."""
    return torch.stack([
        sum(w * row for w, row in zip(torch.stack([
            REGION_SCALE * F.cosine_similarity(one, row, 0) for row in x
        ]).softmax(0), x)) for one in x])


def last_inputs(blocks, forward, x):
    """What the last block gets: tokens of one image, and rotations."""
    seen = {}

    def look(module, args, options):
        seen.update(x=args[0][0], rope=options.get('rope'))

    handle = blocks[-1].register_forward_pre_hook(look, with_kwargs=True)
    whole = forward(x)
    handle.remove()
    return seen['x'], seen['rope'], whole


def looped_map(visual, x, dense):
    """``(L, D)`` of one image ``(1, 3, h, w)``."""
    if hasattr(visual, 'attnpool'):
        pool = visual.attnpool
        tokens = visual.forward_intermediates(x)['image_intermediates'][-1]
        tokens = tokens[0].flatten(1).T
        if dense == 'region':
            tokens = averaged(tokens)
        return torch.stack([pool.c_proj(pool.v_proj(t)) for t in tokens])
    if hasattr(visual, 'trunk'):
        return looped_trunk(visual, x, dense)
    blocks = visual.transformer.resblocks
    tokens, _, whole = last_inputs(
        blocks, lambda x: visual.transformer(visual._embeds(x)), x)
    if dense in BLOCKS:
        tokens = looped_block(blocks[-1], tokens[1:], dense, visual.grid_size,
                              None)
    else:
        tokens = whole[0, 1:]
    pool = visual.attn_pool
    if pool is not None:
        tokens = pool.ln_k(tokens)
        if dense == 'region':
            tokens = averaged(tokens)
        attn = pool.attn
        weight, bias = attn.in_proj_weight, attn.in_proj_bias[-attn.embed_dim:]
        weight = attn.v_proj_weight if weight is None else (
            weight[-attn.embed_dim:])
        tokens = torch.stack([attn.out_proj(weight @ t + bias)
                              for t in tokens])
    return torch.stack([visual.ln_post(t) @ visual.proj for t in tokens])


def looped_trunk(visual, x, dense):
    trunk = visual.trunk
    if dense == 'heads' and not hasattr(trunk, 'blocks'):
        features = trunk.forward_features(x)[0].flatten(1).T
        return torch.stack([visual.head(trunk.forward_head(
            f[None, :, None, None]))[0] for f in features])
    prefix = trunk.num_prefix_tokens
    tokens, rope, features = last_inputs(
        trunk.blocks, trunk.forward_features, x)
    if dense in BLOCKS:
        tokens = tokens[prefix:]
        rows = round(len(tokens)**.5)
        tokens = trunk.norm(looped_block(
            trunk.blocks[-1], tokens, dense, (rows, rows), rope))
    else:
        tokens = features[0, prefix:]
    if dense == 'region':
        tokens = averaged(tokens)
    return torch.stack([visual.head(trunk.forward_head(
        t.expand(1, prefix + 1, -1)))[0] for t in tokens])


@pytest.mark.parametrize('family, dense', CASES)
@torch.no_grad()
def test_a_dense_map_is_a_loop_over_locations(build, family, dense):
    size = side(family)
    backbone = build(family, dense=dense)
    images = torch.randn(2, 3, size, size)
    found, pooled = backbone.encode_image(images)
    expected = torch.stack([
        looped_map(backbone.visual, one[None], dense) for one in images])
    scale = expected.std()
    assert scale > 1e-3 and found.std((2, 3)).mean() > 1e-3
    torch.testing.assert_close(
        found.flatten(2).transpose(1, 2) / scale, expected / scale,
        atol=2e-5, rtol=0)
    # The embedding is open_clip's own, whatever the map is.
    own = backbone.visual(images)
    own = own[0] if isinstance(own, tuple) else own
    torch.testing.assert_close(pooled, own, atol=1e-5, rtol=1e-4)


def test_every_option_gives_another_map(build):
    for family, (*_, options) in FAMILIES.items():
        backbone = build(family)
        tower = backbone.image_tower
        assert tower.dense_options == options, family
        assert tower.dense == tower.default == options[0]
        x = torch.randn(1, 3, side(family), side(family))
        with torch.no_grad():
            maps = [F.normalize(image_tower(
                backbone.visual, 'it', dense)(x, False)[0], dim=1)
                for dense in options]
        for i, one in enumerate(maps):
            assert all((one - other).abs().max() > 1e-3
                       for other in maps[:i]), family


def test_an_option_of_another_family_is_refused(build):
    for family, wrong in (('resnet', 'naclip'), ('vit', 'region'),
                          ('convnext', 'sclip'), ('siglip', 'nonsense')):
        with pytest.raises(ValueError, match=(
                f"dense-{family} cannot make the dense map '{wrong}': set "
                f"dense to one of '{FAMILIES[family][2][0]}'")):
            build(family, dense=wrong)


def test_the_window_of_naclip_is_a_gaussian_of_distances():
    found = gaussian_window((2, 3), std=2.)
    for i in range(6):
        for j in range(6):
            r2 = (i // 3 - j // 3)**2 + (i % 3 - j % 3)**2
            assert found[i, j].item() == pytest.approx(
                torch.tensor(-r2 / 8.).exp().item())


@pytest.mark.parametrize('family', ['resnet', 'vit', 'coca', 'siglip',
                                    'pe-core'])
@torch.no_grad()
def test_where_the_pool_looks(build, family):
    """The weights of each head, token by token. (A ResNet's:
    tests/experiments/test_report.py.)"""
    backbone = build(family)
    x = torch.randn(2, 3, side(family), side(family))
    found = backbone.image_attention(x)
    dense, _ = backbone.encode_image(x)
    assert found.shape == (2, dense.shape[2] * dense.shape[3])
    assert (found >= 0).all() and (found.sum(1) < 1 + 1e-5).all()
    seen = {}
    visual = backbone.visual
    if family == 'coca':
        pool = visual.attn_pool
    elif family in ('siglip', 'pe-core'):
        pool = visual.trunk.attn_pool
    else:
        return  # the class token is no part of open_clip that says so
    handle = pool.register_forward_pre_hook(
        lambda module, args: seen.update(x=args[0]))
    backbone.visual(x)
    handle.remove()
    expected = []
    for one in seen['x']:
        if family == 'coca':
            one, attn = pool.ln_k(one), pool.attn
            query = pool.ln_q(pool.query[:1])
            expected.append(attn(query, one, one)[1][0])
            continue
        heads = pool.num_heads
        q = pool.q_norm(pool.q(pool.latent[0, 0]).reshape(heads, -1))
        k = pool.kv(one)[:, :one.shape[1]].reshape(len(one), heads, -1)
        expected.append(torch.stack([
            torch.stack([q[h] @ pool.k_norm(k[i])[h] * q.shape[1]**-.5
                         for i in range(len(one))]).softmax(0)
            for h in range(heads)]).mean(0))
    expected = torch.stack(expected)[:, -found.shape[1]:]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_a_tower_without_attention_looks_nowhere(build):
    with pytest.raises(ValueError, match='does not pool by attention'):
        build('convnext').image_attention(torch.randn(1, 3, 64, 64))


# Caches, copies, files


def scenes(**options):
    return load_config(str(ROOT / 'configs/trm_ml_scenes.py'), {
        'train_dataloader.dataset.dataset.num_images': 8,
        'val_dataloader.dataset.num_images': 4,
        'test_dataloader.dataset.num_images': 4, **options})


@pytest.mark.parametrize('options', [
    {'model.backbone.dense': 'region'},
    {'model.backbone.windows': dict(size=64, stride=32)}])
def test_a_cache_of_another_map_is_refused(tmp_path, options):
    CacheFiller(scenes(), 'val', tmp_path).fill(4, 0)
    CacheFiller(scenes(), 'train', tmp_path).fill(4, 0)
    default = scenes(**{'model.backbone.dense': 'value'})
    use_cache(default, tmp_path, ['val'])  # its name says the same
    with pytest.raises(ValueError, match='dense map or windows'):
        use_cache(scenes(**options), tmp_path, ['train', 'val'])


def test_the_name_of_a_tower_says_its_map(build):
    plain = tower_name(build('vit'))
    assert plain == f'{build("vit").fingerprint} torch.float32'
    assert tower_name(build('vit', dense='value')) == plain
    assert tower_name(build('vit', dense='naclip')) == f'{plain} dense=naclip'
    assert tower_name(build('vit', dense='sclip', windows=dict(
        size=64, stride=32))) == f'{plain} dense=sclip windows=64/32'


def test_a_checkpoint_says_its_map():
    cfg = scenes(**{'model.backbone.dense': 'region',
                    'model.backbone.windows': dict(size=64, stride=32)})
    found = describe(cfg).to_plain()['model']['backbone']
    assert found['dense'] == 'region'
    assert found['windows'] == dict(size=64, stride=32)


@pytest.mark.parametrize('frozen', [True, False])
def test_a_copy_shares_a_frozen_tower_alone(build, frozen):
    backbone = build('vit', frozen=frozen, dense='naclip')
    twin = deepcopy(backbone)
    assert twin.image_tower.visual is twin.visual
    assert (twin.visual is backbone.visual) == frozen


@pytest.mark.parametrize('family, options', [
    ('vit', dict(dense='naclip')), ('siglip', dict(dense='sclip')),
    ('siglip', dict(dense='region')), ('resnet', dict(dense='region')),
    ('vit', dict(dense='clearclip', windows=dict(size=64, stride=32)))])
@torch.no_grad()
def test_torch_export_gives_the_same_map(build, family, options):
    size = 96 if 'windows' in options else side(family)
    tower = build(family, **options).image_tower

    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = tower.visual

        def forward(self, x):
            return tower(x, False)[0]

    x = torch.randn(2, 3, size, size)
    file = torch.export.export(Map().eval(), (x, ), dynamic_shapes=(
        {0: torch.export.Dim('batch', min=1, max=64)}, ))
    for images in (x, torch.randn(3, 3, size, size)):
        torch.testing.assert_close(file.module()(images),
                                   tower(images, False)[0], atol=1e-5,
                                   rtol=1e-4)


@torch.no_grad()
def test_half_precision_makes_nearly_the_same_maps(build):
    for family, dense in (('vit', 'naclip'), ('siglip', 'sclip'),
                          ('pe-core', 'clearclip'), ('resnet', 'region')):
        x = torch.randn(1, 3, side(family), side(family))
        whole, half = (build(family, dense=dense, tower_dtype=dtype)
                       for dtype in ('float32', 'bfloat16'))
        assert F.cosine_similarity(
            whole.encode_image(x)[0].flatten(1),
            half.encode_image(x)[0].flatten(1)) > .99


def test_scores_of_a_map_are_a_loop_over_labels():
    dense, text = torch.randn(3, 8, 2, 4), F.normalize(torch.randn(2, 8), dim=1)
    targets = torch.tensor([[1, 0], [1, 1], [1, -1]])
    boxes = [{0: [[0., 0, .5, .5], [.9, .9, 1, 1]]},
             {0: [[.5, 0, 1, 1]], 1: [[0, .5, 1, 1]]}, None]
    found = score_dense_map(dense, text, targets, boxes)
    hits, chance = [], []
    for i, c in ((0, 0), (1, 0), (1, 1)):
        cosines = F.cosine_similarity(dense[i], text[c][:, None, None], 0)
        row, column = divmod(cosines.argmax().item(), 4)
        inside = [[any(left <= (x + .5) / 4 < right and
                       top <= (y + .5) / 2 < bottom
                       for left, top, right, bottom in boxes[i][c])
                   for x in range(4)] for y in range(2)]
        hits.append(inside[row][column])
        chance.append(sum(map(sum, inside)) / 8)
        assert found.best[i, c].item() == pytest.approx(
            cosines.max().item(), abs=1e-6)
    assert found.hits.tolist() == hits
    assert found.chance.tolist() == pytest.approx(chance)


# Windows


@pytest.mark.parametrize('length, starts', [
    (64, [0]), (128, [0, 32, 64]), (112, [0, 32, 48]), (96, [0, 32])])
def test_windows_end_at_the_border(length, starts):
    assert window_starts(length, 64, 32) == starts


@pytest.mark.parametrize('family, dense, size, stride, image', [
    ('vit', 'naclip', 64, 32, (128, 112)), ('siglip', 'region', 64, 48,
                                            (96, 128)),
    ('resnet', 'value', 128, 64, (224, 128)), ('convnext', 'heads', 64, 32,
                                               (96, 96)),
    ('vit', None, 64, 32, (64, 64))])
@torch.no_grad()
def test_windows_are_a_loop_over_windows(build, family, dense, size, stride,
                                         image):
    backbone = build(family, max(image), dense=dense,
                     windows=dict(size=size, stride=stride))
    tower = image_tower(backbone.visual, 'it', dense)
    x = torch.randn(2, 3, *image)
    found, pooled = backbone.encode_image(x)
    step = size // tower(x[..., :size, :size], False)[0].shape[-1]
    total = torch.zeros_like(found)
    count = torch.zeros(found.shape[2:])
    assert found.shape[2:] == (image[0] // step, image[1] // step)
    rows, columns = (sorted({*range(0, side - size, stride), side - size})
                     for side in image)
    for top in rows:
        for left in columns:
            part, _ = tower(x[..., top:top + size, left:left + size], False)
            where = (slice(top // step, top // step + part.shape[2]),
                     slice(left // step, left // step + part.shape[3]))
            total[..., where[0], where[1]] += part
            count[where] += 1
    torch.testing.assert_close(found, total / count, atol=1e-4, rtol=1e-4)
    small = x if image == (size, size) else F.interpolate(
        x, (size, size), mode='bicubic', antialias=True)
    torch.testing.assert_close(pooled, tower(small)[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('windows, image, message', [
    ('dict(size=64, stride=32)', 128, 'In a command, set model.backbone.win'),
    (dict(size=64), 128, r'windows is dict\(size=..., stride=...\)'),
    (dict(size=64, stride=0), 128, 'windows.stride must be a positive integer'),
    (dict(size=64, stride=96), 128, 'which leaves gaps between windows'),
    (dict(size=64, stride=32), 48, 'set image_size to at least 64'),
    (dict(size=64, stride=24), 128, 'set a multiple of 16'),
    (dict(size=64, stride=32), 120, 'set image_size to 64 plus a multiple')])
def test_windows_that_do_not_fit_are_refused(build, windows, image, message):
    with pytest.raises(ValueError, match=message):
        build('vit', windows=windows)(torch.randn(1, 3, image, image))


def test_windows_have_no_attention_of_their_own(build):
    backbone = build('vit', windows=dict(size=64, stride=32))
    with pytest.raises(ValueError, match='build it without windows'):
        backbone.image_attention(torch.randn(1, 3, 96, 96))
