import copy
import shutil

import pytest
import torch
import torch.nn.functional as F

from trm_ml_mm.models import CLIPPromptBackbone, PromptLearner, load_clip
from trm_ml_mm.models.text import PromptedTextEncoder
from trm_ml_mm.models.towers import TextTower
from trm_ml_mm.models.towers.loading import fingerprint

NAMES = ['red circle', 'blue star', 'striped heart']


@pytest.fixture(scope='module')
def clip():
    return load_clip('mini', None)


def plain_features(clip, prompt):
    """Every prompt whole, over all places of the tower, by open_clip's own
    transformer and mask: what nothing saves."""
    features = []
    for p in range(prompt.num_prompts):
        for c in range(prompt.num_classes):
            own = min(c, prompt.context.shape[1] - 1)
            row = torch.cat([prompt.start[c], prompt.context[p, own],
                             prompt.rest[c]])
            fill = torch.randn(clip.context_length - len(row), row.shape[1])
            x = torch.cat([row, fill]) + clip.positional_embedding
            x = clip.transformer(x[None], attn_mask=clip.attn_mask)
            x = clip.ln_final(x[0, prompt.end[c]])
            features.append(x @ clip.text_projection)
    return torch.stack(features).unflatten(0, (prompt.num_prompts, -1))


@pytest.mark.parametrize('context', ['a photo of a', 4, 0])
@pytest.mark.parametrize('pair', [False, True])
@pytest.mark.parametrize('class_specific', [False, True])
@pytest.mark.parametrize('learnable', [False, True])
def test_cut_and_shared_text_equals_the_plain_path(clip, context, pair,
                                                   class_specific, learnable):
    """Features and gradients, for every kind of prompt."""
    tower = TextTower(clip.model, 'mini')
    prompt = PromptLearner(tower, NAMES, context, pair, class_specific,
                           learnable)
    prompts = 2 if pair else 1
    count = sum(p.numel() for p in prompt.parameters())
    tokens = 4 if isinstance(context, str) else context
    groups = prompts * (3 if class_specific else 1)
    assert count == (groups * tokens * 128 if learnable else 0)
    if learnable:
        torch.nn.init.normal_(prompt.context, std=.1)
    features = tower(*prompt())
    expected = plain_features(clip.model, prompt)
    assert features.shape == (prompts, 3, 128)
    # Features are far from length 1, and only their direction counts.
    assert torch.allclose(F.normalize(features, dim=-1),
                          F.normalize(expected, dim=-1), atol=1e-6)
    if learnable and tokens:
        weight = torch.randn_like(features)
        ours, = torch.autograd.grad((features * weight).sum(), prompt.context)
        plain, = torch.autograd.grad((expected * weight).sum(),
                                     prompt.context)
        assert plain.abs().max() > 1e-2
        assert torch.allclose(ours, plain, atol=1e-5 * plain.abs().max())


@torch.no_grad()
def test_eval_features_are_dropped_when_a_value_changes(clip):
    text = PromptedTextEncoder(NAMES, clip, residual=.3).eval()
    first = text()
    assert text() is first
    text.prompt.context.data.add_(1.)  # as an EMA swap does
    second = text()
    assert second is not first and not torch.equal(first, second)
    text.residual.data.normal_()
    assert not torch.equal(text(), second)
    state = PromptedTextEncoder(NAMES, clip, residual=.3).state_dict()
    text.load_state_dict(state)
    assert torch.equal(text(), first)


def test_features_in_training_carry_gradients(clip):
    text = PromptedTextEncoder(NAMES, clip, residual=.3)
    text.eval()
    with torch.no_grad():
        text()
    assert text().requires_grad  # eval mode with gradients on: not the cache
    text.train()
    text().sum().backward()
    assert text.prompt.context.grad is not None


@pytest.mark.parametrize('classes', [NAMES, None])
def test_frozen_clip_is_nowhere_to_be_learned(classes):
    backbone = CLIPPromptBackbone('mini', classes=classes, image_size=96)
    names = [n for n, _ in backbone.named_parameters()]
    assert names == (['text.prompt.context'] if classes else [])
    assert set(backbone.state_dict()) == set(
        ['text.prompt.context', 'text.identity'] if classes else [])
    before = copy.deepcopy(backbone.visual.state_dict())
    backbone.train()
    backbone.init_weights()
    backbone(torch.randn(4, 3, 96, 96))
    for key, value in backbone.visual.state_dict().items():
        assert torch.equal(value, before[key]), key
    twin = copy.deepcopy(backbone)
    # An EMA costs no second tower.
    assert twin.visual is twin._encode.visual is backbone.visual
    if classes:
        assert twin.text.text_tower.model is backbone.text.clip


def test_frozen_tower_moves_with_its_owner():
    backbone = CLIPPromptBackbone('mini', classes=NAMES, image_size=96)
    backbone.double()
    assert backbone.visual.conv1.weight.dtype == torch.float64
    assert backbone.text.clip.token_embedding.weight.dtype == torch.float64


def test_unfrozen_is_one_line():
    backbone = CLIPPromptBackbone('mini', classes=NAMES, image_size=96,
                                  frozen=False)
    backbone.train()
    features = backbone(torch.randn(4, 3, 96, 96))
    (features.dense.sum() + features.text.sum()).backward()
    assert backbone.visual.conv1.weight.grad.abs().sum() > 0
    keys = [k for k in backbone.state_dict() if 'conv1.weight' in k]
    assert keys.count('text.tower.visual.conv1.weight') == 1
    assert not any(k.startswith('tower.') for k in keys)  # stored once


def test_without_classes_it_is_a_plain_backbone():
    backbone = CLIPPromptBackbone('mini', image_size=96)
    dense, = backbone(torch.randn(2, 3, 96, 96))
    assert dense.shape == (2, 128, 6, 6)


@torch.no_grad()
def test_saved_random_context_replaces_what_was_cached(clip):
    build = lambda: PromptedTextEncoder(  # noqa: E731
        NAMES, clip, prompt=dict(context=4, learnable=False)).eval()
    text, other = build(), build()
    before = text()
    text.load_state_dict(other.state_dict())
    assert torch.equal(text(), other()) and not torch.equal(text(), before)


@torch.no_grad()
def test_kept_features_do_not_depend_on_autocast(clip):
    plain = PromptedTextEncoder(NAMES, clip).eval()
    mixed = PromptedTextEncoder(NAMES, clip).eval()
    with torch.autocast('cpu', torch.bfloat16):
        mixed(), mixed.zero_shot_text()
    assert torch.equal(mixed(), plain())
    assert torch.equal(mixed.zero_shot_text(), plain.zero_shot_text())


def test_other_words_or_activation_are_another_identity(clip):
    state = PromptedTextEncoder(NAMES, clip).state_dict()
    named = PromptedTextEncoder(
        NAMES, clip, prompt_names={'red circle': 'red ring'})
    with pytest.raises(ValueError, match='other words'):
        named.load_state_dict(state)
    with pytest.raises(ValueError, match='"dog", which is not'):
        PromptedTextEncoder(NAMES, clip, prompt_names={'dog': 'hound'})
    a = load_clip('ViT-B-32', None, 32, quick_gelu=True)
    for block in a.model.transformer.resblocks:
        block.mlp.gelu = torch.nn.GELU()
    assert fingerprint(a.model, a.arch) != a.fingerprint


def test_learned_towers_keep_batchnorm_statistics():
    backbone = CLIPPromptBackbone('mini', image_size=96, frozen=False)
    backbone.train()
    before = backbone.visual.bn1.running_mean.clone()
    backbone(torch.randn(4, 3, 96, 96))
    assert torch.equal(backbone.visual.bn1.running_mean, before)


@pytest.mark.skipif(shutil.which('g++') is None,
                    reason='torch.compile needs a C++ compiler')
def test_compiled_text_equals_the_plain_path(clip):
    text = PromptedTextEncoder(NAMES, clip, compile=True).train()
    torch.nn.init.normal_(text.prompt.context, std=.1)
    expected = F.normalize(plain_features(clip.model, text.prompt), dim=-1)
    features = text()
    assert torch.allclose(features, expected, atol=1e-5)
    weight = torch.randn_like(features)
    ours, = torch.autograd.grad((features * weight).sum(), text.prompt.context)
    plain, = torch.autograd.grad((expected * weight).sum(),
                                 text.prompt.context)
    assert torch.allclose(ours, plain, atol=1e-5 * plain.abs().max())


def test_half_precision_towers_give_nearly_the_same():
    images = torch.randn(2, 3, 96, 96)
    whole = CLIPPromptBackbone('mini', image_size=96, pooled=True)
    half = CLIPPromptBackbone('mini', image_size=96, pooled=True,
                              tower_dtype='bfloat16')
    assert half.visual.conv1.weight.dtype == torch.bfloat16
    for a, b in zip(whole.encode_image(images), half.encode_image(images)):
        assert b.dtype == torch.float32
        cosine = F.cosine_similarity(a.flatten(1), b.flatten(1))
        assert (cosine > .995).all()
    with pytest.raises(ValueError, match="tower_dtype is 'float32', or"):
        CLIPPromptBackbone('mini', image_size=96, tower_dtype='int8')
    with pytest.raises(ValueError, match='for a frozen tower'):
        CLIPPromptBackbone('mini', image_size=96, tower_dtype='float16',
                           frozen=False)


def test_a_pair_of_fixed_prompts_is_refused(clip):
    with pytest.raises(ValueError, match='both fixed .* set learnable=True'):
        PromptedTextEncoder(NAMES, clip, prompt=dict(pair=True,
                                                     learnable=False))


def test_fixed_prompts_are_encoded_once(clip, monkeypatch):
    text = PromptedTextEncoder(NAMES, clip, prompt=dict(learnable=False),
                               residual=.3).train()
    calls = []
    real = text.text_tower
    text.text_tower = lambda *a: calls.append(1) or real(*a)
    first = text()
    first.sum().backward()
    text.residual.data.normal_()
    assert not torch.equal(text(), first)  # what is learned still counts
    assert len(calls) == 1
    text.float()  # as a move to another device: computed anew
    text()
    assert len(calls) == 2
