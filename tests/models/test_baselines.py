"""The baselines, against plain loops."""
import os

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ROOT

from trm_ml_mm.engine import load_config
from trm_ml_mm.models import CLIPFeatures

LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')


def head(kind, **options):
    return MODELS.build(dict(type=f'trm_ml_mm.{kind}', num_classes=4, dim=8,
                             loss=LOSS, **options)).eval()


def features(prompts=1, batch=3):
    text = F.normalize(torch.randn(prompts, 4, 8), dim=-1)
    zero_shot = F.normalize(torch.randn(4, 8), dim=-1)
    pooled = torch.randn(batch, 8)
    return CLIPFeatures((torch.randn(batch, 8, 2, 3), ), text, zero_shot,
                        pooled=pooled)


def cosine(a, b):
    return F.cosine_similarity(a, b, dim=0).item()


@pytest.mark.parametrize('prompts', [1, 2])
def test_text_image_equals_a_loop(prompts):
    feats = features(prompts)
    got = head('TextImageHead', logit_scale=5.)(feats)
    for b in range(3):
        for c in range(4):
            similar = [cosine(feats.pooled[b], feats.text[p, c])
                       for p in range(prompts)]
            expected = similar[0] - (similar[1] if prompts == 2 else 0)
            assert got[b, c].item() == pytest.approx(5 * expected, abs=1e-5)


@pytest.mark.parametrize('prompts', [1, 2])
def test_text_pixel_equals_a_loop(prompts):
    feats = features(prompts)
    got = head('TextPixelHead', logit_scale=20.)(feats)
    places = feats.dense.flatten(2)
    for b in range(3):
        for c in range(4):
            positive = torch.tensor([
                20 * cosine(places[b, :, n], feats.text[0, c])
                for n in range(6)])
            logits = positive
            if prompts == 2:
                logits = positive - torch.tensor([
                    20 * cosine(places[b, :, n], feats.text[1, c])
                    for n in range(6)])
            expected = (positive.softmax(0) * logits).sum()
            assert got[b, c].item() == pytest.approx(expected.item(),
                                                     abs=1e-4)


def test_a_linear_probe_is_linear_in_the_normalised_embedding():
    probe, feats = head('LinearProbeHead', logit_scale=2.), features()
    expected = 2 * F.normalize(feats.pooled, dim=-1) @ probe.output.weight.T
    assert torch.allclose(probe(feats), expected, atol=1e-6)


@pytest.mark.parametrize('kind', ['TextImageHead', 'LinearProbeHead'])
def test_the_whole_image_must_be_asked_for(kind):
    with pytest.raises(ValueError, match='set pooled=True'):
        head(kind)(features().replace(pooled=None))


@pytest.mark.parametrize('level', ['global', 'dense'])
def test_zero_shot_equals_a_loop(level):
    zero_shot = MODELS.build(dict(type='trm_ml_mm.ZeroShotHead', level=level))
    feats = features()
    sample, *_ = zero_shot.predict(feats)
    locations = feats.dense.flatten(2)
    for c in range(4):
        text = feats.zero_shot_text[c]
        expected = cosine(feats.pooled[0], text) if level == 'global' else max(
            cosine(locations[0, :, n], text) for n in range(6))
        assert sample.pred_score[c].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(sample.pred_logit, sample.pred_score)


def test_zero_shot_says_what_it_needs():
    zero_shot = MODELS.build(dict(type='trm_ml_mm.ZeroShotHead',
                                  level='global'))
    with pytest.raises(ValueError, match='set pooled=True'):
        zero_shot(features().replace(pooled=None))
    with pytest.raises(ValueError, match='nothing to train'):
        zero_shot.loss(features(), [])
    with pytest.raises(ValueError, match='other backbones have no text'):
        zero_shot((torch.randn(2, 8, 3, 3), ))
    with pytest.raises(ValueError, match="level must be 'global' or 'dense'"):
        MODELS.build(dict(type='trm_ml_mm.ZeroShotHead', level='local'))


def test_a_text_started_decoder_begins_as_clip_has_it():
    """Its first logits are text-region matching with the anchor."""
    decoder, feats = head('QueryDecoderHead', start='text',
                          self_attention=2), features()
    region = decoder.region(feats.dense, feats.zero_shot_text).region
    expected = 10 * F.cosine_similarity(
        region, feats.zero_shot_text[None], dim=-1)
    assert torch.allclose(decoder(feats), expected, atol=1e-5)


def test_dropout_of_a_decoder_is_off_in_prediction():
    decoder, feats = head('QueryDecoderHead', dropout=.5), features()
    decoder.train()
    assert not torch.equal(decoder(feats), decoder(feats))
    decoder.eval()
    assert torch.equal(decoder(feats), decoder(feats))


def test_a_random_decoder_knows_nothing_of_the_text():
    decoder, feats = head('QueryDecoderHead', start='random'), features()
    other = feats.replace(text=-feats.text,
                           zero_shot_text=-feats.zero_shot_text)
    assert torch.equal(decoder(feats), decoder(other))


def test_unknown_starts_are_refused():
    with pytest.raises(ValueError, match="start must be 'text' or 'random'"):
        head('QueryDecoderHead', start='zero')


@pytest.mark.parametrize('kind', [
    'TextImageHead', 'TextPixelHead', 'QueryDecoderHead', 'LinearProbeHead'])
def test_labels_are_supervised_as_in_our_head(kind):
    """Known labels by the loss, and absence assumed where negatives are not
    labelled."""
    baseline, feats = head(kind, assume_negative=.5), features()
    targets = torch.tensor([[1., -1, 0, -1], [-1, -1, 1, 1], [-1, 0, -1, -1]])
    samples = [DataSample().set_gt_score(row) for row in targets]
    baseline.train()
    losses = baseline.loss(feats, samples)
    logits = baseline(feats)
    assert logits.mean().item() == pytest.approx(-2.3, abs=1e-4)
    assert losses['loss_cls'].item() == pytest.approx(
        baseline.loss_module(logits, targets).item(), abs=1e-5)
    absent = torch.full((3, 4), -1.)
    absent[1:, 0] = 0  # classes 0 and 3 have no known negative
    absent[0, 3] = absent[2, 3] = 0
    assert losses['loss_assumed'].item() == pytest.approx(
        .5 * baseline.loss_module(logits, absent).item() * 4 / 12, abs=1e-5)


def test_baselines_move_to_other_data_by_one_variable(monkeypatch):
    path = str(ROOT / 'configs/baselines/text_pixel.py')
    assert load_config(path).model.backbone.classes == 'scenes'
    monkeypatch.setitem(os.environ, 'TRM_ML_BASE', 'trm_ml_coco')
    cfg = load_config(path)
    assert cfg.model.backbone.classes == 'coco'
    assert cfg.model.backbone.arch == 'RN101'
    assert cfg.train_dataloader.dataset.dataset.type.endswith('CocoMultiLabel')
