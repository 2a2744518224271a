import math

import pytest
import torch
import torch.nn.functional as F

from trm_ml_mm.models import CategoryRegions
from trm_ml_mm.models.region import matching_logits, saliency_maps


def test_saliency_equals_a_loop():
    queries, places = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    got = saliency_maps(queries, places)
    for b in range(2):
        for h in range(2):
            for c in range(3):
                e = [math.exp((queries[h, c] * places[b, n]).sum())
                     for n in range(5)]
                for n in range(5):
                    assert got[b, h, c, n].item() == pytest.approx(
                        e[n] / sum(e), abs=1e-5)


@pytest.mark.parametrize('heads', [1, 4])
def test_it_is_cross_attention_of_queries_over_places(heads):
    """As PyTorch's own attention has it, with every place projected; values
    and gradients."""
    region = CategoryRegions(6, 16, num_heads=heads)
    for value in region.parameters():
        torch.nn.init.normal_(value, std=.3)
    dense, anchor = torch.randn(2, 5, 16), torch.randn(6, 16)
    dense.requires_grad_()

    def plain():
        places = F.normalize(dense, dim=-1)
        # PyTorch scales by 1 / sqrt(d); ours is in the weights.
        scale = (16 / heads)**.5
        attended, maps = F.multi_head_attention_forward(
            scale * (anchor + region.query_offset)[:, None].expand(-1, 2, -1),
            places.transpose(0, 1), places.transpose(0, 1), 16, heads, None,
            None, None, None, False, 0., torch.eye(16), None,
            use_separate_proj_weight=True,
            q_proj_weight=region.query_proj.weight,
            k_proj_weight=region.key_proj.weight,
            v_proj_weight=region.value_proj.weight)
        pooled = maps @ places
        return maps, pooled, pooled + region.mlp(attended.transpose(0, 1))

    learned = [dense, *region.parameters()]
    for a, b in zip(region(dense, anchor), plain()):
        assert torch.allclose(a, b, atol=1e-5)
    weight = torch.randn(2, 6, 16)
    ours = torch.autograd.grad((region(dense, anchor).query * weight).sum(),
                               learned)
    theirs = torch.autograd.grad((plain()[2] * weight).sum(), learned)
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize('heads', [1, 4])
def test_it_starts_as_clip_similarity(heads):
    region = CategoryRegions(6, 16, num_heads=heads, attention_scale=40.)
    dense = torch.randn(2, 16, 3, 4)
    anchor = F.normalize(torch.randn(6, 16), dim=-1)
    found = region(dense, anchor)
    assert found.saliency.shape == (2, 6, 12)
    assert torch.allclose(found.saliency.sum(-1), torch.ones(2, 6))
    # The query level starts equal to the region level.
    assert torch.equal(found.query, found.region)
    places = F.normalize(dense.flatten(2).transpose(1, 2), dim=-1)
    want = torch.einsum('bcl,bld->bcd', found.saliency, places)
    assert torch.allclose(found.region, want, atol=1e-6)
    if heads == 1:
        cosine = torch.einsum('cd,bld->bcl', anchor, places)
        assert torch.allclose(found.saliency, (40 * cosine).softmax(-1),
                              atol=1e-5)


def test_maps_and_sequences_are_the_same():
    region = CategoryRegions(6, 16)
    dense, anchor = torch.randn(2, 16, 3, 4), torch.randn(6, 16)
    a = region(dense, anchor)
    b = region(dense.flatten(2).transpose(1, 2), anchor)
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_without_residual_the_query_level_stands_alone():
    region = CategoryRegions(6, 16, residual=False, mlp_layers=1)
    found = region(torch.randn(2, 16, 3, 4), torch.randn(6, 16))
    assert not torch.allclose(found.query, found.region)


def test_every_value_is_learned():
    region = CategoryRegions(6, 16, mlp_layers=2)
    torch.nn.init.normal_(region.mlp[-1].weight)
    found = region(torch.randn(2, 16, 3, 4), torch.randn(6, 16))
    found.query.pow(2).sum().backward()
    for name, value in region.named_parameters():
        assert value.grad.abs().sum() > 0, name


def test_matching_is_one_to_one():
    features = torch.randn(3, 5, 8)
    text = F.normalize(torch.randn(1, 5, 8), dim=-1)
    logits = matching_logits(features, text, 10.)
    for b in range(3):
        for c in range(5):
            cos = F.cosine_similarity(features[b, c], text[0, c], dim=0)
            assert logits[b, c].item() == pytest.approx(
                (10 * cos).item(), abs=1e-5)
    # Another category's region does not matter.
    changed = features.clone()
    changed[:, 1] = torch.randn(3, 8)
    other = matching_logits(changed, text, 10.)
    assert torch.equal(other[:, [0, 2, 3, 4]], logits[:, [0, 2, 3, 4]])


def test_a_pair_subtracts_the_negative_prompt():
    features = torch.randn(3, 5, 8)
    text = F.normalize(torch.randn(2, 5, 8), dim=-1)
    pair = matching_logits(features, text, 10.)
    positive = matching_logits(features, text[:1], 10.)
    negative = matching_logits(features, text[1:], 10.)
    assert torch.allclose(pair, positive - negative, atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match='divide'):
        CategoryRegions(3, 10, num_heads=4)
