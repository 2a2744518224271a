"""Real towers at full size with random values, against open_clip itself."""
import logging

import open_clip
import pytest
import torch
import torch.nn.functional as F
from malicious import Writes
from torch import nn

from trm_ml_mm.models import CLIPPromptBackbone, PromptLearner, load_clip
from trm_ml_mm.models.towers import TextTower, save_random_weights
from trm_ml_mm.models.towers.torchscript import read_torchscript

CLASSES = ['cat', 'fire hydrant', 'a very long name of many words', 'tvmonitor']
WORDS = CLASSES[:3] + ['tv monitor']
ARCHS = ['RN50', 'RN101', 'ViT-B-16']


@pytest.fixture(scope='module', params=ARCHS)
def arch(request):
    return request.param


@pytest.fixture(scope='module')
def weights(arch, tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / f'{arch}.pt'
    save_random_weights(arch, str(path))
    return str(path)


@pytest.fixture(scope='module')
def reference(arch, weights):
    model = open_clip.create_model(arch, force_quick_gelu=True)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def build(arch, weights, size=224, **kwargs):
    return CLIPPromptBackbone(
        arch, weights, CLASSES, image_size=size, pooled=True,
        quick_gelu=True, **kwargs).eval()


def as_torchscript(state, path):
    """An archive like OpenAI's own: half precision, three facts added."""
    root = nn.Module()
    for key, value in state.items():
        parent = root
        *folders, name = key.split('.')
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = getattr(parent, folder)
        value = value.half() if value.is_floating_point() else value
        parent.register_buffer(name, value)
    for key, value in (('input_resolution', 224), ('context_length', 77),
                       ('vocab_size', 49408)):
        root.register_buffer(key, torch.tensor(value))
    torch.jit.script(root).save(path)


@torch.no_grad()
def test_images_differ_for_random_weights(reference):
    """Else a head that tells them apart would magnify rounding errors."""
    colours = F.interpolate(torch.randn(4, 3, 4, 4), 224, mode='bilinear')
    images = F.normalize(reference.encode_image(colours), dim=-1)
    assert (images @ images.T).fill_diagonal_(0).max() < .999


@torch.no_grad()
def test_tower_agrees_with_open_clip(arch, weights, reference):
    backbone = build(arch, weights)
    images = torch.randn(2, 3, 224, 224)
    features = backbone(images)
    expected = reference.encode_image(images)
    atol = 1e-5 * expected.abs().max().item()
    assert torch.allclose(features.pooled, expected, atol=atol)
    if not arch.startswith('RN'):
        return
    # open_clip's own pooling of a map of one place, without positions, is
    # what the dense map has at that place.
    visual = reference.visual
    trunk = visual.forward_intermediates(images)['image_intermediates'][-1]
    assert torch.allclose(visual.attnpool(trunk), expected, atol=atol)
    for y, x in ((0, 0), (3, 5), (6, 6)):
        place = trunk[:, :, y:y + 1, x:x + 1]
        pooled = torch.func.functional_call(
            visual.attnpool,
            {'positional_embedding': torch.zeros(2, trunk.shape[1])},
            (place, ))
        assert torch.allclose(features.dense[:, :, y, x], pooled, atol=atol)


@torch.no_grad()
def test_vit_dense_map_is_the_last_block_attending_to_itself(
        arch, weights, reference):
    if arch.startswith('RN'):
        pytest.skip('ResNets have no transformer block')
    images = torch.randn(2, 3, 224, 224)
    dense = build(arch, weights)(images).dense
    visual = reference.visual
    x = visual._embeds(images)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    mask = torch.full((x.shape[1], x.shape[1]), float('-inf'))
    mask.fill_diagonal_(0)
    x = last(x, attn_mask=mask)
    expected = (visual.ln_post(x) @ visual.proj)[:, 1:]
    assert torch.allclose(dense.flatten(2).transpose(1, 2), expected,
                          atol=1e-4)


@torch.no_grad()
def test_truncated_text_agrees_with_open_clip(arch, weights, reference):
    backbone = build(arch, weights)
    tokens = open_clip.get_tokenizer(arch)(
        [f'a photo of a {w}.' for w in WORDS])
    expected = F.normalize(reference.encode_text(tokens), dim=-1)
    assert torch.allclose(backbone.text()[0], expected, atol=1e-5)
    assert torch.allclose(backbone.text.zero_shot_text(), expected, atol=1e-5)
    prefix, suffix, *_ = backbone.text.prompt()
    assert prefix.shape[1] == 5 and suffix.shape[2] < 11


def test_torchscript_and_state_dict_give_the_same(arch, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    path = str(tmp_path / 'openai.pt')
    as_torchscript(state, path)
    loaded = load_clip(arch, path).model.state_dict()
    for key, value in state.items():
        assert torch.equal(loaded[key], value.half().float()
                           if value.is_floating_point() else value), key


@torch.no_grad()
def test_448_px(arch, weights):
    features = build(arch, weights, size=448)(torch.randn(1, 3, 448, 448))
    side = 448 // (16 if arch.startswith('ViT') else 32)
    assert features.dense.shape[2:] == (side, side)
    assert features.dense.isfinite().all() and features.pooled.isfinite().all()


def test_another_architecture_is_refused(arch, weights, tmp_path):
    other = 'RN50' if arch == 'RN101' else 'RN101'
    with pytest.raises(ValueError, match=f'is not a {other}: "'):
        load_clip(other, weights)


def test_quick_gelu_must_be_known(arch, weights, tmp_path):
    if arch.startswith('RN'):
        model = load_clip(arch, weights).model
    else:
        with pytest.raises(ValueError, match='set quick_gelu'):
            load_clip(arch, weights)
        path = str(tmp_path / 'openai.pt')
        as_torchscript(torch.load(weights, weights_only=True), path)
        model = load_clip(arch, path).model
        plain = load_clip(arch, weights, quick_gelu=False).model
        act = plain.transformer.resblocks[0].mlp.gelu
        assert not isinstance(act, open_clip.transformer.QuickGELU)
    act = model.transformer.resblocks[0].mlp.gelu
    assert isinstance(act, open_clip.transformer.QuickGELU)


def test_unknown_names_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match='no architecture'):
        load_clip('RN1', None)
    with pytest.raises(FileNotFoundError, match='openai'):
        load_clip('RN50', 'missing.pt')
    (tmp_path / 'text.pt').write_text('hello')
    with pytest.raises(ValueError, match='not a weights file'):
        load_clip('RN50', str(tmp_path / 'text.pt'))
    with pytest.raises(ValueError, match='not a weights file'):
        load_clip('mini', str(tmp_path / 'text.pt'))
    torch.save(dict(model={}, epoch=3), tmp_path / 'foreign.pt')
    with pytest.raises(ValueError, match='not a weights file'):
        load_clip('RN50', str(tmp_path / 'foreign.pt'))


def test_vit_of_another_size_is_refused():
    backbone = CLIPPromptBackbone('ViT-B-32', None, image_size=64)
    with pytest.raises(ValueError, match='set image_size'):
        backbone(torch.randn(1, 3, 96, 96))


def test_prompts_longer_than_the_tower_are_refused():
    tower = TextTower(load_clip('mini', None).model, 'mini')
    with pytest.raises(ValueError, match='33 tokens .0 of them.* 24 posit'):
        tower.tokenize(['red ' * 30], '')
    with pytest.raises(ValueError, match='30 tokens .25 of them.* 24 posit'):
        PromptLearner(tower, ['red circle'], context=25)


def test_the_mini_clip_says_which_word_it_lacks():
    with pytest.raises(ValueError, match='never learned the word "dog"'):
        CLIPPromptBackbone('mini', classes=['dog'])


def test_no_program_of_an_archive_runs(tmp_path):
    marker, path = tmp_path / 'ran', tmp_path / 'evil.pt'
    torch.jit.script(Writes(str(marker))).save(path)
    torch.jit.load(path)
    assert marker.exists()  # this is what must not happen
    marker.unlink()
    with pytest.raises(ValueError, match='evil.pt .* own way of loading'):
        CLIPPromptBackbone('RN50', str(path), CLASSES)
    assert not marker.exists()


def test_an_archive_gives_the_tensors_that_jit_would(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.register_buffer('turned', torch.randn(4, 6).half().t())
            self.register_buffer('count', torch.arange(5))
            self.parts = nn.ModuleList([nn.Linear(2, 3), nn.BatchNorm1d(3)])

        def forward(self, x):
            return x

    net = Net()
    torch.jit.script(net).save(tmp_path / 'a.pt')
    found = read_torchscript(tmp_path / 'a.pt')
    assert found.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_weights_from_a_file_raise_no_alarm(tiny_clip, tmp_path, caplog):
    """open_clip warns of random values, which the file's replace next."""
    path = str(tmp_path / 'tiny.pth')
    save_random_weights(tiny_clip, path)
    caplog.clear()
    load_clip(tiny_clip, path)
    assert 'No pretrained weights' not in caplog.text
    logging.warning('Another warning passes: No weights')
    assert 'Another warning passes' in caplog.text


def test_weights_that_cannot_be_downloaded_are_a_sentence(monkeypatch):
    """Without the internet; as open_clip says it."""
    def refuse(*args, **options):
        raise RuntimeError("Failed to download weights for tag 'openai': "
                           'no route to host.')
    monkeypatch.setattr(open_clip, 'create_model', refuse)
    with pytest.raises(FileNotFoundError, match='RN50 .* cannot be downloaded'
                       '.* no route to host.* model.backbone.weights=PATH'):
        load_clip('RN50', 'openai')
