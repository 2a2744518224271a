"""Baked text: the same predictions without a text tower."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from trm_ml_mm.apis.model import build_model
from trm_ml_mm.engine import bake_text, complete, describe, load_learned
from trm_ml_mm.models.text import BakedText

NAMES = ['red circle', 'blue star', 'striped heart']
LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')
REGION = dict(type='trm_ml_mm.TextRegionMatchingHead', loss=LOSS)


def on_clip(head, **backbone):
    return dict(
        type='trm_ml_mm.CLIPClassifier', head=head,
        backbone=dict(type='trm_ml_mm.CLIPPromptBackbone', arch='mini',
                      image_size=96, classes=NAMES, **backbone))


def on_resnet(**text):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18, num_stages=4,
                      out_indices=(3, )),
        head=dict(REGION, num_classes=3, in_channels=512,
                  text=dict(classes=NAMES, arch='mini', **text)))


MODELS_TO_BAKE = {
    'fixed prompts': on_clip(REGION, prompt=dict(learnable=False)),
    'aligned': on_clip(REGION, align=True, prompt_names={
        'red circle': 'blue circle'}),
    'a learned pair, moved': on_clip(REGION, text_residual=.3, prompt=dict(
        pair=True, context=2, class_specific=True)),
    'a learned tower': on_clip(REGION, frozen=False),
    'whole images': on_clip(
        dict(type='trm_ml_mm.TextImageHead', loss=LOSS), pooled=True),
    'another backbone': on_resnet(),
    'another backbone, aligned': on_resnet(align=True, residual=.3),
}


def build(config):
    """A model, and its description as a checkpoint has it."""
    cfg = Config(dict(model=config, default_scope='mmpretrain'))
    model = build_model(cfg).eval()
    return model, complete(describe(cfg), model)


@torch.no_grad()
def logits(model):
    torch.manual_seed(1)
    return model.head(model.extract_feat(torch.randn(2, 3, 96, 96)))


@pytest.mark.parametrize('name', MODELS_TO_BAKE)
def test_a_baked_model_predicts_the_same_bits(name, tmp_path):
    model, description = build(MODELS_TO_BAKE[name])
    with torch.no_grad():  # as if it had learned something
        for p in model.parameters():
            p.add_(.01 * torch.randn_like(p))
        if MODELS_TO_BAKE[name]['backbone'].get('align'):
            model.head.alignment.unit.fill_(.7)
            model.head.alignment.seen.fill_(9)
            model.load_state_dict(model.state_dict())
    expected = logits(model)
    before = str(description)
    found, state = bake_text(model, description, model.state_dict())
    torch.save(state, tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    baked, again = build(found.to_plain()['model'])
    load_learned(baked, state, 'here')
    assert torch.equal(logits(baked), expected)
    assert expected.std() > .01
    assert str(description) == before and again.words == description.words
    # There is no text tower, in the model or in its state.
    for owner in (baked.backbone, baked.head):
        text = getattr(owner, 'text', None)
        if text is not None:
            assert type(text) is BakedText
            assert text.clip is None or list(text.clip) == ['visual']
    assert not any('transformer' in key or 'prompt.' in key for key in state)
    # Baking it once more changes nothing.
    twice, same = bake_text(baked, again, state)
    assert twice.model == again.model
    assert same.keys() == state.keys()
    assert all(torch.equal(same[key], state[key]) for key in state)


def test_a_baked_tower_moves_with_its_owner():
    model, _ = build(MODELS_TO_BAKE['aligned'])
    baked = BakedText.of(model.backbone.text).double()
    assert baked.clip.visual.attnpool.c_proj.weight.dtype == torch.float64
    assert baked().dtype == torch.float64


def test_baked_text_of_another_clip_or_classes_is_refused():
    model, description = build(MODELS_TO_BAKE['aligned'])
    found, state = bake_text(model, description, model.state_dict())
    options = found.model['backbone']
    other, _ = build(dict(found.model, backbone=dict(
        options, arch='mini-wide')))
    with pytest.raises(ValueError, match='another frozen CLIP'):
        other.load_state_dict(state)
    other, _ = build(dict(found.model, backbone=dict(
        options, classes=['red circle', 'blue star', 'green heart'],
        prompt_names={})))
    with pytest.raises(ValueError, match='other class names'):
        other.load_state_dict(state)
    init_default_scope('mmpretrain')
    with pytest.raises(ValueError, match='needs embed_dim'):
        MODELS.build(dict(type='trm_ml_mm.BakedText', classes=NAMES))


def test_a_model_without_text_stays_as_it_is():
    model, description = build(MODELS_TO_BAKE['another backbone'])
    model.head.text = None
    found, state = bake_text(model, description, model.state_dict())
    assert found == description
    assert state.keys() == model.state_dict().keys()
