"""After alignment, nothing depends on how narrow the joint space is."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ROOT

from trm_ml_mm.engine import load_config
from trm_ml_mm.models import CLIPFeatures, CLIPPromptBackbone
from trm_ml_mm.models.alignment import (
    JointSpaceAlignment,
    centred,
    cosine_spread,
)
from trm_ml_mm.models.text import PromptedTextEncoder

LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')
HEADS = {
    'TextRegionMatchingHead': dict(
        prototypes=dict(type='trm_ml_mm.MultimodalPrototypes',
                        warmup_images=0),
        pseudo_weight=1.,
        contrast=dict(type='trm_ml_mm.MultimodalContrastiveLoss'),
        distillation=dict(type='trm_ml_mm.RegionDistillationLoss')),
    'TextPixelHead': {},
    'TextImageHead': {},
    'QueryDecoderHead': dict(start='text', self_attention=2),
}


def features(classes=4, batch=6, dim=8):
    """Image and text features of a joint space without cones."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    return dict(text=draw(classes, dim), mean=.1 * draw(dim),
                pooled=draw(batch, dim), locations=draw(batch, 9, dim))


def in_cones(raw, cone, gap):
    """The same in a space where cosines are ``cone`` times as wide, with
    constants for images and texts whose cosine is ``gap``. Centring text is
    the encoder's work, so text comes centred and the zero-shot text raw."""
    constants = {'image': (1., 0.), 'text': (gap, (1 - gap**2)**.5)}

    def shifted(x, kind):
        extra = x.new_tensor(constants[kind]).expand(*x.shape[:-1], 2)
        return torch.cat([cone**.5 * x, (1 - cone)**.5 * extra], -1)

    text, mean = shifted(raw['text'], 'text'), shifted(raw['mean'], 'text')
    dense = shifted(raw['locations'], 'image').transpose(1, 2)
    return CLIPFeatures(
        (dense.unflatten(2, (3, 3)), ), centred(text, mean)[None], text, mean,
        shifted(raw['pooled'], 'image'))


@pytest.mark.parametrize('kind', HEADS)
@pytest.mark.parametrize('cone,gap', [(1 / 3, 1.), (1 / 6, .2), (1 / 12, .6)])
def test_losses_do_not_depend_on_cones(kind, cone, gap):
    raw = features()
    targets = torch.randint(-1, 2, (6, 4)).float()
    values = []
    for feats in (in_cones(raw, 1., 1.), in_cones(raw, cone, gap)):
        torch.manual_seed(0)
        head = MODELS.build(dict(
            type=f'trm_ml_mm.{kind}', num_classes=4, dim=10, loss=LOSS,
            assume_negative=1., **HEADS[kind])).train()
        samples = [DataSample().set_gt_score(row) for row in targets]
        for _ in range(2):
            losses = head.loss(feats, samples)
        values.append({k: v.item() for k, v in losses.items()})
    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-4)
    assert values[0]['loss_cls'] > 0


@pytest.mark.parametrize('kind', HEADS)
@pytest.mark.parametrize('classes,images', [(1, 6), (2, 6), (4, 1), (1, 1)])
def test_one_class_and_one_image_train(kind, classes, images):
    raw = features(classes, images)
    head = MODELS.build(dict(
        type=f'trm_ml_mm.{kind}', num_classes=classes, dim=10, loss=LOSS,
        **HEADS[kind])).train()
    targets = torch.ones(images, classes)
    for _ in range(3):  # the last steps have pseudo-labels and prototypes
        losses = head.loss(in_cones(raw, 1 / 6, .2), [
            DataSample().set_gt_score(row) for row in targets])
        targets = torch.randint(-1, 2, targets.shape).float()
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    for name, value in head.named_parameters():
        assert value.grad is None or value.grad.isfinite().all(), name
    assert total.isfinite()


def test_without_alignment_cones_do_matter():
    """The test above can fail."""
    raw, logits = features(), []
    for feats in (in_cones(raw, 1., 1.), in_cones(raw, 1 / 6, .2)):
        head = MODELS.build(dict(type='trm_ml_mm.TextPixelHead',
                                 num_classes=4, dim=10, loss=LOSS)).eval()
        logits.append(head(feats.replace(text=feats.zero_shot_text[None],
                                          text_mean=None)))
    assert (logits[0] - logits[1]).std() > .1


def test_the_unit_is_the_spread_of_cosines_over_locations():
    locations = F.normalize(torch.randn(4, 5, 8), dim=-1)
    text = F.normalize(torch.randn(3, 8), dim=-1)
    expected = [torch.cat([locations[b] @ text[c] for b in range(4)]).std(
        correction=0).item() for c in range(3)]
    assert cosine_spread(locations, text).item() == pytest.approx(
        sum(expected) / 3, abs=1e-6)


def test_means_are_running_means_over_the_first_images():
    batches = [torch.randn(n, 5, 8) for n in (3, 5, 4)]
    text = F.normalize(torch.randn(3, 8), dim=-1)
    alignment = JointSpaceAlignment(8, images=8)
    for batch in batches:
        if alignment.is_measuring:
            alignment.measure(batch, batch.mean(1), text)
    first = F.normalize(torch.cat(batches[:2]), dim=-1)
    assert alignment.seen == 8  # the third batch came too late
    assert torch.allclose(alignment.location_mean, first.mean((0, 1)),
                          atol=1e-6)
    twin = JointSpaceAlignment(8, images=8)
    twin.load_state_dict(alignment.state_dict())
    assert not twin.is_measuring
    moved = copy.deepcopy(twin.state_dict())
    locations, pooled = twin(batches[2], None)
    assert pooled is None and torch.allclose(
        locations.norm(dim=-1), torch.ones(4, 5))
    for key, value in twin.state_dict().items():
        assert torch.equal(value, moved[key])


@pytest.mark.parametrize('names', [['red circle'], ['red circle', 'blue star']])
def test_the_mean_text_does_not_depend_on_few_classes(names):
    """With one class, its own mean would be the class itself."""
    text = PromptedTextEncoder(names, arch='mini', align=True).eval()
    other = PromptedTextEncoder(['green heart'], arch='mini',
                                align=True).eval()
    assert torch.allclose(text.text_mean(), other.text_mean(), atol=1e-6)
    expected = centred(text.zero_shot_text(), text.text_mean())
    with torch.no_grad():
        found = text()[0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.isfinite().all()


def test_one_switch_aligns_a_whole_model():
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                      {'model.backbone.align': True,
                       'model.head.prototypes.warmup_images': 0})
    model = MODELS.build(cfg.model).train()
    assert isinstance(model.backbone, CLIPPromptBackbone)
    images = torch.rand(4, 3, 96, 96)
    feats = model.backbone(images)
    assert feats.text_mean.shape == (128, )
    model.head.calibrate(feats)
    joint = model.head.joint_features(feats)
    assert joint.dense.mean((0, 1)).norm() < .1  # centred
    unit = model.head.alignment.unit
    assert .2 < unit < 2
    assert model.head.scaled(2.) == 2 / unit
    # A single image of one colour gives finite numbers too.
    model = MODELS.build(cfg.model).train()
    flat = model.backbone(torch.zeros(1, 3, 96, 96))
    flat = flat.replace(dense=flat.dense[..., :1, :1].expand(1, 128, 6, 6))
    model.head.calibrate(flat)
    assert model.head.match(flat).query_logits.isfinite().all()


def test_measuring_is_in_full_precision():
    """Under autocast too; the bfloat16 of a tower is all that differs."""
    units = []
    for enabled in (False, True):
        head = MODELS.build(dict(type='trm_ml_mm.TextPixelHead',
                                 num_classes=4, dim=10, loss=LOSS)).train()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            head.calibrate(in_cones(features(), 1 / 12, .6))
        units.append(head.alignment.unit)
    assert torch.equal(*units)


def test_a_head_is_used_as_it_was_trained():
    feats = in_cones(features(), 1., 1.)
    plain = feats.replace(text_mean=None)

    def trained(feats):
        head = MODELS.build(dict(type='trm_ml_mm.TextPixelHead',
                                 num_classes=4, dim=10, loss=LOSS)).train()
        head.calibrate(feats)
        twin = MODELS.build(dict(type='trm_ml_mm.TextPixelHead',
                                 num_classes=4, dim=10, loss=LOSS)).eval()
        twin.load_state_dict(head.state_dict())
        return twin

    trained(feats)(feats)
    trained(plain)(plain)
    with pytest.raises(ValueError, match='set model.backbone.align=True'):
        trained(feats)(plain)
    with pytest.raises(ValueError, match='set model.backbone.align=False'):
        trained(plain)(feats)
