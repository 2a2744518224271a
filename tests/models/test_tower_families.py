"""Towers of every family of open_clip, with tiny widths, against open_clip's
own programs."""
import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn

from trm_ml_mm.labels import UNKNOWN
from trm_ml_mm.models import CLIPClassifier, CLIPPromptBackbone
from trm_ml_mm.models.text.prompt_learner import tokenizer
from trm_ml_mm.models.towers import built_size, can_be_cut, image_tower
from trm_ml_mm.models.towers.loading import normalisation

WORDS = ['red car', 'fire hydrant', 'cat']
TEXT = dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=2)
BOTH_WAYS = dict(TEXT, no_causal_mask=True)
VIT = dict(layers=2, width=64, head_width=32, patch_size=16, image_size=64)


def trunk(name, size, pool, proj):
    return dict(timm_model_name=name, timm_model_pretrained=False,
                timm_pool=pool, timm_proj=proj, image_size=size)


# As open_clip's configs have them.
FAMILIES = {
    'vit': (VIT, TEXT, {}),
    'vit, pooled by the mean': (
        dict(VIT, pool_type='avg', final_ln_after_pool=True, no_ln_pre=True),
        TEXT, {}),
    'convnext': (trunk('convnext_atto', 64, '', 'linear'), TEXT, {}),
    'convnext, MLP': (trunk('convnext_atto', 64, '', 'mlp'), TEXT, {}),
    'swin': (trunk('swin_tiny_patch4_window7_224', 224, '', 'linear'), TEXT,
             {}),
    'eva02': (trunk('eva02_tiny_patch14_224', 224, 'token', None), TEXT,
              dict(custom_text=True)),
    'mobileclip': (trunk('fastvit_t8', 128, 'avg', None), BOTH_WAYS,
                   dict(custom_text=True)),
    'pe-core': (trunk('vit_pe_core_tiny_patch16_384', 384, 'map', None),
                dict(TEXT, context_length=32), dict(custom_text=True)),
    'vitamin': (trunk('vitamin_small_224', 224, '', 'linear'), TEXT,
                dict(custom_text=True)),
    'coca': (dict(VIT, attentional_pool=True, attn_pooler_heads=2,
                  output_tokens=True),
             dict(TEXT, context_length=76, embed_cls=True,
                  output_tokens=True),
             dict(custom_text=True, multimodal_cfg=dict(TEXT, context_length=76,
                                                        attn_pooler_heads=2))),
}
WHOLE = ('mobileclip', 'coca')  # see what is behind the end token


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope='module')
def arch(family, tmp_path_factory):
    vision, text, more = FAMILIES[family]
    name = f'tiny-{"-".join(family.replace(",", "").split())}'
    path = tmp_path_factory.mktemp('arch') / f'{name}.json'
    path.write_text(json.dumps(dict(embed_dim=32, vision_cfg=vision,
                                    text_cfg=text, **more)))
    open_clip.add_model_config(path)
    return name


@pytest.fixture(scope='module')
def size(family):
    return FAMILIES[family][0]['image_size']


def lively(model):
    """Random values that are seen: many towers start at nearly zero."""
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            nn.init.normal_(value, std=value[0].numel()**-.5)
        elif 'gamma' in name:
            nn.init.constant_(value, .5)
    return model


@pytest.fixture(scope='module')
def weights(arch, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'random.pt'
    torch.save(lively(open_clip.create_model(arch)).state_dict(), path)
    return str(path)


def build(arch, weights, size, **options):
    return CLIPPromptBackbone(arch, weights, WORDS, image_size=size,
                              pooled=True, quick_gelu=False, **options).eval()


@pytest.fixture(scope='module')
def backbone(arch, weights, size):
    return build(arch, weights, size)


def encoded(backbone, texts):
    """By open_clip's own program, normalised."""
    rows = open_clip.SimpleTokenizer()(
        texts, backbone.text.clip.text.context_length
        if hasattr(backbone.text.clip, 'text')
        else backbone.text.clip.context_length)
    with torch.no_grad():
        return backbone.text.clip.encode_text(rows, normalize=True)


def test_features_are_open_clips_own(backbone, family, size):
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        feats = backbone(x)
        own = backbone.text.clip.encode_image(x)
    assert feats.text.shape == (1, 3, 32)
    torch.testing.assert_close(F.normalize(feats.pooled, dim=-1),
                               F.normalize(own, dim=-1), atol=1e-5, rtol=0)
    expected = encoded(backbone, [f'a photo of a {w}.' for w in WORDS])
    for text in (feats.zero_shot_text, feats.text[0]):
        torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)
    assert feats.dense.shape[:2] == (2, 32) and min(feats.dense.shape[2:]) > 1
    assert feats.dense.std((2, 3)).mean() > 1e-3  # places differ
    assert can_be_cut(backbone.text.clip) == (family not in WHOLE)


def test_the_size_it_is_built_for_is_known_beforehand(arch, backbone, size):
    any_size = image_tower(backbone.visual, arch).takes_any_size
    assert built_size(arch) == (None if any_size else size)


def test_another_image_size(arch, weights, size, backbone):
    found = build(arch, weights, size + 64)
    x = torch.randn(1, 3, size + 64, size + 64)
    with torch.no_grad():
        feats, before = found(x), backbone(torch.randn(1, 3, size, size))
        own = found.text.clip.encode_image(x)
    torch.testing.assert_close(F.normalize(feats.pooled, dim=-1),
                               F.normalize(own, dim=-1), atol=1e-5, rtol=0)
    assert feats.dense.shape[2] > before.dense.shape[2]


@pytest.mark.parametrize('prompt', [
    {}, dict(class_specific=True), dict(pair=True)])
def test_learned_context_of_words_is_those_words(arch, weights, size, prompt):
    found = build(arch, weights, size, prompt=dict(
        context=4, learnable=True, **prompt))
    words = 'the blurry picture of'
    part = getattr(found.text.clip, 'text', found.text.clip)
    with torch.no_grad():
        found.text.prompt.context.copy_(part.token_embedding.weight[
            torch.tensor(tokenizer().encode(words))])
        text = found.text()
    expected = encoded(found, [f'{words} {w}.' for w in WORDS])
    for one in text:
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)
    found.text.train()
    found.text()[0, 1].sum().backward()
    assert found.text.prompt.context.grad.abs().max() > 0


def test_a_place_is_what_the_heads_say_of_it_alone(backbone, family, size):
    """For trunks of timm: a loop over places."""
    visual = backbone.visual
    if not hasattr(visual, 'trunk'):
        pytest.skip('no trunk of timm')
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        dense = backbone(x).dense[0]
        features = visual.trunk.forward_features(x)
        if features.dim() == 3:
            prefix = visual.trunk.num_prefix_tokens
            features = features[0, prefix:]
            alone = [f.expand(1, 1 + prefix, -1) for f in features]
        elif features.shape[-1] == visual.trunk.num_features:
            alone = [f[None, None, None] for f in features[0].flatten(0, 1)]
        else:
            alone = [f[None, :, None, None] for f in features[0].flatten(1).T]
        for number in (0, 1, len(alone) - 1):
            expected = visual.head(visual.trunk.forward_head(alone[number]))
            row, column = divmod(number, dense.shape[2])
            torch.testing.assert_close(
                F.normalize(dense[:, row, column], dim=0),
                F.normalize(expected[0], dim=0), atol=1e-5, rtol=0)


def test_a_step_and_a_prediction(arch, weights, size):
    torch.manual_seed(0)
    model = CLIPClassifier(
        dict(type='trm_ml_mm.CLIPPromptBackbone', arch=arch, weights=weights,
             classes=WORDS, image_size=size, align=True, quick_gelu=False,
             prompt=dict(context=2, learnable=True)),
        dict(type='trm_ml_mm.TextRegionMatchingHead',
             loss=dict(type='trm_ml_mm.PartialAsymmetricLoss')))
    samples = [DataSample().set_gt_score(torch.tensor(row, dtype=torch.float))
               for row in ([1, 0, UNKNOWN], [UNKNOWN, 1, 0])]
    x = torch.randn(2, 3, size, size)
    model.train()
    losses = model(x, samples, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert model.backbone.text.prompt.context.grad.abs().max() > 0
    assert all(p.grad is None for p in model.backbone.text.clip.parameters())
    model.eval()
    found = model(x, samples, mode='predict')
    assert all(torch.isfinite(one.pred_score).all() for one in found)


@pytest.mark.parametrize('arch, mean, std', [
    ('MobileCLIP-S1', 0., 1.),  # by its one tag
    ('ViT-L-14', None, None),  # its tags disagree
    ('a new one', None, None)])
def test_files_have_the_normalisation_of_the_tags(arch, mean, std):
    found = normalisation(SimpleNamespace(image_size=64), arch)
    if mean is None:
        assert found == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    else:
        assert found == ((mean, ) * 3, (std, ) * 3)


@pytest.mark.parametrize('arch', ['ViT-B-16-SigLIP', 'ViT-H-14-CLIPA',
                                  'ViT-L-14-worldwide',
                                  'xlm-roberta-base-ViT-B-32'])
def test_other_tokenizers_are_refused_by_name(arch):
    with pytest.raises(ValueError, match=f'{arch} .*tokenizer'):
        CLIPPromptBackbone(arch, None, WORDS)
