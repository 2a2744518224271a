"""Towers of every family of open_clip, with tiny widths, against open_clip's
own programs."""
import json
import sys
from pathlib import Path
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
from trm_ml_mm.models.towers import built_size, image_tower
from trm_ml_mm.models.towers.loading import normalisation

sys.path.append(str(Path(__file__).parents[2] / 'tools' / 'benchmarks'))
from made_tokenizers import (  # noqa: E402
    kind_of,
    make_text_config,
    make_tokenizer,
)

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


def siglip(name):
    text = dict(BOTH_WAYS, context_length=64, hf_tokenizer_name=name,
                pool_type='last', proj_bias=True, vocab_size=130,
                tokenizer_kwargs=dict(clean='canonicalize'))
    return (trunk('vit_tiny_patch16_224', 224, 'map', 'none'), text,
            dict(custom_text=True, init_logit_bias=-10, embed_dim=192))


def worldwide(name, end):
    return VIT, dict(TEXT, hf_tokenizer_name=name, pool_type='eos',
                     eos_id=end, vocab_size=130), {}


def foreign_text(name, **options):
    return VIT, dict(hf_model_name=name, hf_tokenizer_name=name, **options), {}


# Their tokenizers, or their whole text towers, are of Hugging Face.
HUGGING_FACE = {
    'siglip': siglip('timm/ViT-B-16-SigLIP'),
    'siglip2': siglip('timm/ViT-B-16-SigLIP2'),
    'clipa': (dict(VIT, no_ln_pre=True, pool_type='avg',
                   final_ln_after_pool=True),
              dict(BOTH_WAYS, context_length=32, pool_type='last',
                   hf_tokenizer_name='bert-base-uncased', vocab_size=130,
                   tokenizer_kwargs=dict(strip_sep_token=True)), {}),
    'worldwide': worldwide('google/mt5-base', 1),
    'worldwide, xlm-v': worldwide('facebook/xlm-v-base', 2),
    'roberta': foreign_text('roberta-base', hf_proj_type='mlp',
                            hf_pooler_type='mean_pooler'),
    'xlm-roberta': foreign_text('xlm-roberta-base', hf_proj_type='mlp',
                                hf_pooler_type='mean_pooler'),
    'mt5': foreign_text('google/mt5-base', hf_proj_type='mlp',
                        hf_pooler_type='mean_pooler'),
    'nllb': foreign_text('facebook/nllb-200-distilled-600M',
                         hf_proj_type='linear', hf_pooler_type='cls_pooler'),
    'coca, roberta': (
        FAMILIES['coca'][0], dict(
            hf_model_name='roberta-base', hf_tokenizer_name='roberta-base',
            hf_proj_type='linear', output_tokens=True),
        dict(custom_text=True, multimodal_cfg=dict(
            TEXT, context_length=76, attn_pooler_heads=2))),
}
FAMILIES.update(HUGGING_FACE)
# See what is behind the end token.
WHOLE = ('mobileclip', 'coca', 'siglip', 'siglip2', 'clipa', 'roberta',
         'xlm-roberta', 'mt5', 'nllb', 'coca, roberta')


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope='module')
def arch(family, tmp_path_factory):
    vision, text, more = FAMILIES[family]
    folder = tmp_path_factory.mktemp('arch')
    if family in HUGGING_FACE:
        text = with_files(text, folder / 'text')
    name = f'tiny-{"-".join(family.replace(",", "").split())}'
    path = folder / f'{name}.json'
    path.write_text(json.dumps({**dict(embed_dim=32, vision_cfg=vision,
                                       text_cfg=text), **more}))
    open_clip.add_model_config(path)
    return name


def with_files(text, folder):
    """Made files in place of a download."""
    pytest.importorskip('transformers')
    make_tokenizer(kind_of(text['hf_tokenizer_name']), folder)
    text = dict(text, hf_tokenizer_name=str(folder))
    if 'hf_model_name' in text:
        make_text_config(text['hf_model_name'], folder, dict(
            vocab=130, width=32, layers=2, heads=2))
        text['hf_model_name'] = str(folder)
    return text


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
    model = open_clip.create_model(arch, load_weights=False,
                                   pretrained_text=False)
    torch.save(lively(model).state_dict(), path)
    return str(path)


def build(arch, weights, size, **options):
    return CLIPPromptBackbone(arch, weights, WORDS, image_size=size,
                              pooled=True, quick_gelu=False, **options).eval()


@pytest.fixture(scope='module')
def backbone(arch, weights, size):
    return build(arch, weights, size)


def encoded(backbone, texts):
    """By open_clip's own program, normalised."""
    rows = open_clip.get_tokenizer(backbone.arch)(texts)
    with torch.no_grad():
        return backbone.text.clip.encode_text(rows, normalize=True)


def test_features_are_open_clips_own(backbone, family, size):
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        feats = backbone(x)
        own = backbone.text.clip.encode_image(x)
    assert feats.text.shape == (1, 3, backbone.embed_dim)
    torch.testing.assert_close(F.normalize(feats.pooled, dim=-1),
                               F.normalize(own, dim=-1), atol=1e-5, rtol=0)
    expected = encoded(backbone, [f'a photo of a {w}.' for w in WORDS])
    for text in (feats.zero_shot_text, feats.text[0]):
        torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)
    assert feats.dense.shape[:2] == (2, backbone.embed_dim)
    assert min(feats.dense.shape[2:]) > 1
    assert feats.dense.std((2, 3)).mean() > 1e-3  # locations differ
    assert backbone.text.text_tower.can_be_cut == (family not in WHOLE)


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
def test_learned_context_of_words_is_those_words(arch, weights, size, prompt,
                                                 backbone):
    words = 'the blurry picture of'
    tower = backbone.text.text_tower
    ids, start, count, _ = tower.tokenize(WORDS, words)
    found = build(arch, weights, size, prompt=dict(
        context=count, learnable=True, **prompt))
    with torch.no_grad():
        found.text.prompt.context.copy_(
            tower.embedding(ids[0, start:start + count]))
        text = found.text()
    expected = encoded(found, [f'{words} {w}.' for w in WORDS])
    for one in text:
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)
    found.text.train()
    found.text()[0, 1].sum().backward()
    assert found.text.prompt.context.grad.abs().max() > 0


@pytest.mark.parametrize('family', [
    name for name, (vision, *_) in FAMILIES.items()
    if 'timm_model_name' in vision], indirect=True)
def test_a_location_is_what_the_heads_say_of_it_alone(backbone, family, size):
    """For trunks of timm: a loop over locations."""
    visual = backbone.visual
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
