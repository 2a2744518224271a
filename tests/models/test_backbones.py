"""The head on other backbones."""
import pytest
import torch
from backbones import CASES, build, case, row, step
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ROOT

from trm_ml_mm.models import CLIPFeatures, TextImageHead
from trm_ml_mm.models.feature_maps import feature_places

RESNET = case('ResNet', 512, depth=18)
LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')


@pytest.mark.parametrize('case', CASES, ids=lambda c: c.name)
def test_a_backbone_works_or_is_refused_with_its_remedy(case):
    model = build(case)
    if case.refusal is not None:
        with pytest.raises(ValueError, match=case.refusal):
            step(model, case.size)
        return
    scores, learned = step(model, case.size)
    assert scores.shape == (2, 3) and scores.isfinite().all()
    assert learned > .8  # the gradient reaches the backbone


def test_the_page_has_a_row_for_each_backbone():
    page = (ROOT / 'docs/own_project.md').read_text(encoding='utf-8')
    for one in CASES:
        assert row(one, one.refusal is None) in page
    assert len({one.name for one in CASES}) >= 24


def test_layouts_of_one_map_are_the_same_places():
    places = torch.randn(2, 12, 5)  # B L C
    grid = places.view(2, 3, 4, 5)
    extra = torch.cat([torch.randn(2, 2, 5), places], 1)
    for feats, tokens in [
            (grid, None), (grid.permute(0, 3, 1, 2), None), ((grid, ), 3),
            ([torch.randn(2, 7, 9, 9), grid.permute(0, 3, 1, 2)], None),
            (places, 0), (places.transpose(1, 2), 0), (extra, 2),
            (extra.transpose(1, 2), 2)]:
        assert torch.equal(feature_places(feats, 5, tokens), places)
    assert torch.equal(feature_places((places[:, 0], ), 5, one_place=True),
                       places[:, :1])
    channels_first = torch.randn(2, 5, 5, 5)  # the convention decides
    assert torch.equal(feature_places(channels_first, 5),
                       channels_first.flatten(2).transpose(1, 2))


@pytest.mark.parametrize('feats, tokens, message', [
    (torch.randn(2, 7, 3, 3), None, 'set in_channels to 7, the'),
    (torch.randn(2, 3, 3, 7), None, 'set in_channels to 7, the'),
    (torch.randn(2, 7, 3, 4), None, 'set in_channels to 7 or 4'),
    (torch.randn(2, 7, 5, 5), None, 'set in_channels to 7, the'),
    ([None], None, 'gave no features'),
    (torch.randn(2, 9, 7), 0, 'set in_channels to 9 or 7'),
    (torch.randn(2, 5, 5), 0, 'as many tokens as channels'),
    (torch.randn(2, 9, 5), None, 'set extra_tokens in the head'),
    (torch.randn(2, 9, 5), 9, 'extra_tokens=9 leaves no place'),
    (torch.randn(2, 9, 5), -1, 'extra_tokens=-1 leaves no place'),
    (torch.randn(2, 5), None, 'remove GlobalAveragePooling from neck'),
    (torch.randn(2, 5, 1, 2, 2), None, 'features of shape'),
    ([[torch.randn(2, 5), torch.randn(2, 5)]], None, '2 features'),
])
def test_what_is_no_map_is_refused(feats, tokens, message):
    with pytest.raises(ValueError, match=message):
        feature_places(feats, 5, tokens)


def test_a_class_token_is_no_place():
    """Saliency is over the places alone."""
    model = build(case('VisionTransformer', 192, arch='deit-tiny', img_size=64,
                       out_type='raw', extra_tokens=1))
    feats = model.extract_feat(torch.rand(2, 3, 64, 64))
    assert feats[0].shape == (2, 17, 192)
    assert model.head.match(feats).features.saliency.shape == (2, 3, 16)
    changed = feats[0].clone()
    changed[:, 0] = 100.
    assert torch.equal(model.head((changed, )), model.head(feats))


@pytest.mark.parametrize('kind', ['TextImageHead', 'LinearProbeHead',
                                  'TextPixelHead', 'QueryDecoderHead'])
def test_the_baselines_stand_on_other_backbones_too(kind):
    model = build(RESNET, dict(type=f'trm_ml_mm.{kind}'))
    scores, learned = step(model, 64)
    assert scores.isfinite().all() and learned > .9


def test_the_whole_image_is_the_mean_of_its_places_or_one_vector():
    model = build(RESNET, dict(type='trm_ml_mm.TextImageHead'))
    images = torch.rand(2, 3, 64, 64)
    feats = model.extract_feat(images)
    image = model.head.projection(feats[0].mean((2, 3)))
    text = model.head.text()[0]
    expected = 10 * torch.stack([
        torch.nn.functional.cosine_similarity(v[None], text) for v in image])
    model.eval()
    assert torch.allclose(model.head(feats), expected, atol=1e-4)
    # A pooling neck may stay: the head wants one vector.
    assert torch.allclose(model.head((feats[0].mean((2, 3)), )), expected,
                          atol=1e-4)
    assert isinstance(model.head, TextImageHead)


def test_zero_shot_has_no_text_there():
    head = MODELS.build(dict(type='trm_ml_mm.ZeroShotHead'))
    with pytest.raises(ValueError, match='other backbones have no text'):
        head((torch.randn(2, 5, 3, 3), ))


# CLIPPromptBackbone among others' parts.

CLIP = dict(type='trm_ml_mm.CLIPPromptBackbone', arch='mini', image_size=96,
            classes=['red circle', 'blue star', 'green heart'], pooled=True)


def test_to_others_the_features_of_clip_are_its_map():
    backbone = MODELS.build(dict(CLIP))
    feats = backbone(torch.rand(2, 3, 96, 96))
    assert isinstance(feats, CLIPFeatures) and isinstance(feats, tuple)
    assert len(feats) == 1 and feats[-1] is feats[0] is feats.dense
    alone = MODELS.build(dict(CLIP, classes=None))(torch.rand(2, 3, 96, 96))
    assert alone[0].shape == feats[0].shape
    other = feats.replace(pooled=None)
    assert other.pooled is None and torch.equal(other.text, feats.text)
    assert other.dense is feats.dense and feats.pooled is not None


def test_text_that_was_asked_for_without_gradients_still_learns():
    """As by a head that measures the joint space before its first step."""
    backbone = MODELS.build(dict(CLIP, prompt=dict(learnable=True)))
    feats = backbone(torch.rand(2, 3, 96, 96))
    with torch.no_grad():
        assert not feats.text.requires_grad
    assert feats.text.requires_grad


def test_a_pooling_neck_and_a_head_of_mmpretrain_work_on_it():
    model = MODELS.build(dict(
        type='ImageClassifier', backbone=dict(CLIP),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='MultiLabelLinearClsHead', num_classes=3,
                  in_channels=128, loss=dict(LOSS))))
    images = torch.rand(2, 3, 96, 96)
    pooled, = model.extract_feat(images)
    dense = model.backbone(images).dense
    assert torch.allclose(pooled, dense.mean((2, 3)), atol=1e-6)
    samples = [DataSample().set_gt_score(torch.tensor([1., 0., -1.]))] * 2
    model(images, samples, mode='loss')['loss'].backward()
    assert model.head.fc.weight.grad.any()


def test_our_head_behind_a_neck_says_what_is_wrong():
    model = MODELS.build(dict(
        type='trm_ml_mm.CLIPClassifier', backbone=dict(CLIP),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='trm_ml_mm.TextPixelHead', loss=dict(LOSS))))
    with pytest.raises(ValueError, match='without a neck'):
        model(torch.rand(2, 3, 96, 96), [DataSample()] * 2, mode='predict')


# Parts of the method that a config replaces.

@MODELS.register_module(force=True)
class LastPlace(torch.nn.Module):
    """A region that is always the last place."""

    def __init__(self, num_classes, dim, weight=1.):
        super().__init__()
        self.num_classes, self.weight = num_classes, weight

    def forward(self, dense, zero_shot_text, unit=1.):
        from trm_ml_mm.models.region import RegionFeatures, as_locations
        places = as_locations(dense)
        last = places[:, -1:].expand(-1, self.num_classes, -1)
        saliency = places.new_zeros(len(places), self.num_classes,
                                    places.shape[1])
        saliency[..., -1] = 1
        return RegionFeatures(saliency, last, self.weight * last)


def test_regions_and_the_text_encoder_can_be_replaced():
    head = dict(type='trm_ml_mm.TextRegionMatchingHead', loss=dict(LOSS),
                region=dict(type='LastPlace', weight=2.))
    model = MODELS.build(dict(type='trm_ml_mm.CLIPClassifier',
                              backbone=dict(CLIP), head=head))
    feats = model.extract_feat(torch.rand(2, 3, 96, 96))
    output = model.head.match(feats)
    assert isinstance(model.head.region, LastPlace)
    assert torch.equal(output.features.query[:, 0],
                       2 * feats.dense[..., -1, -1])

    from trm_ml_mm.models import PromptedTextEncoder

    @MODELS.register_module(force=True)
    class ShoutingTextEncoder(PromptedTextEncoder):
        def forward(self):
            return -super().forward()

    plain = MODELS.build(dict(CLIP))
    changed = MODELS.build(dict(CLIP, text_encoder='ShoutingTextEncoder'))
    assert torch.equal(changed.text(), -plain.text())
    own = build(RESNET, dict(text=dict(
        type='ShoutingTextEncoder', arch='mini',
        classes=['red circle', 'blue star', 'green heart'])))
    assert torch.equal(own.head.text(), -plain.text())
