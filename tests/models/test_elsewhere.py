"""CLIPs that open_clip has no name for, and Hugging Face's library, there or
not."""
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tests_support import ROOT

from trm_ml_mm.models import CLIPPromptBackbone, load_clip

sys.path.append(str(ROOT / 'tools' / 'benchmarks'))
from made_tokenizers import make_tokenizer  # noqa: E402

TEXT = dict(context_length=20, vocab_size=49408, width=32, heads=2, layers=1)
VISION = dict(layers=1, width=64, head_width=32, patch_size=16, image_size=64)
NAMES = ['cat', 'red car']


def write_config(folder, text=TEXT):
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(
        model_cfg=dict(embed_dim=32, vision_cfg=VISION, text_cfg=text),
        preprocess_cfg=dict(mean=[.5, .5, .5], std=[.25, .25, .25]))))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'clip'
    folder.mkdir()
    write_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(f'local-dir:{folder}')
    save_file(model.state_dict(), folder / 'open_clip_model.safetensors')
    return folder


@torch.no_grad()
def test_a_folder_of_open_clip(folder, tmp_path):
    arch = f'local-dir:{folder}'
    for weights in (None, 'default',
                    str(folder / 'open_clip_model.safetensors')):
        backbone = CLIPPromptBackbone(arch, weights, NAMES, pooled=True).eval()
        own = open_clip.create_model(arch).eval()
        x = torch.randn(1, 3, 64, 64)
        assert torch.equal(backbone(x).pooled, own.encode_image(x))
        rows = open_clip.get_tokenizer(arch)(
            [f'a photo of a {name}.' for name in NAMES])
        torch.testing.assert_close(backbone(x).text[0], own.encode_text(
            rows, normalize=True), atol=1e-5, rtol=0)
    assert backbone.mean == (127.5, ) * 3
    moved = shutil.move(folder, tmp_path / 'other')
    other = load_clip(f'local-dir:{moved}', None)
    assert other.fingerprint == backbone.fingerprint


def test_broken_folders(folder, tmp_path):
    arch = f'local-dir:{folder}'
    save_file({'x': torch.zeros(1)}, folder / 'more.safetensors')
    with pytest.raises(ValueError, match='2 weights files .*set weights to'):
        load_clip(arch, None)
    (folder / 'open_clip_model.safetensors').unlink()
    with pytest.raises(ValueError, match='is missing in the file'):
        load_clip(arch, None)
    (folder / 'more.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='no weights: put a file'):
        load_clip(arch, None)
    (folder / 'open_clip_config.json').write_text('{}')
    with pytest.raises(ValueError, match='no embed_dim, vision_cfg, text_cfg'):
        load_clip(arch, None)
    (folder / 'open_clip_config.json').write_text('{')
    with pytest.raises(ValueError, match='is not JSON'):
        load_clip(arch, None)
    with pytest.raises(FileNotFoundError, match='cannot be read'):
        load_clip(f'local-dir:{tmp_path / "none"}', None)


def test_no_program_of_a_folder_runs(folder, tmp_path):
    pytest.importorskip('transformers')
    marker = tmp_path / 'ran'
    make_tokenizer('roberta', folder)
    (folder / 'evil.py').write_text(
        f'open({str(marker)!r}, "w")\nclass Evil: pass\n')
    path = folder / 'tokenizer_config.json'
    config = json.loads(path.read_text())
    config.update(tokenizer_class='Evil',
                  auto_map=dict(AutoTokenizer=['evil.Evil', 'evil.Evil']))
    path.write_text(json.dumps(config))
    write_config(folder, dict(TEXT, hf_tokenizer_name='evil',
                              tokenizer_kwargs=dict(trust_remote_code=True)))
    with suppress(OSError, ValueError):  # or the slow tokenizer is not asked
        CLIPPromptBackbone(f'local-dir:{folder}', None, NAMES)
    assert not marker.exists()
    with suppress(AttributeError, OSError, TypeError, ValueError):
        open_clip.get_tokenizer(f'local-dir:{folder}')
    assert marker.exists()  # this is what must not happen


def python(program, *path):
    """Its output, in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True,
        env={'PYTHONPATH': ':'.join(map(str, (*path, ROOT))),
             'PATH': '/usr/bin:/bin', 'CUDA_VISIBLE_DEVICES': ''})
    assert not done.returncode, done.stderr
    return done.stdout


def test_without_transformers():
    out = python('''
import sys
sys.modules['transformers'] = None
import torch
from trm_ml_mm.models import CLIPPromptBackbone, load_clip
feats = CLIPPromptBackbone('mini', None, ['red circle'])(
    torch.zeros(1, 3, 96, 96))
print(tuple(feats.text.shape))
from trm_ml_mm.models.towers.tokens import load_tokenizer
for build in (lambda: load_tokenizer('ViT-B-16-SigLIP'),
              lambda: load_clip('roberta-ViT-B-32', None)):
    try:
        build()
    except ImportError as error:
        print(error)
''')
    assert '(1, 1, 128)' in out
    for arch in ('ViT-B-16-SigLIP', 'roberta-ViT-B-32'):
        assert f'{arch} reads text by Hugging Face' in out
    assert out.count('pip install "trm_ml_mm[hf]"') == 2


def test_beside_pycocotools_and_a_new_transformers(tmp_path):
    """MMPretrain asks for the packages' names only."""
    pytest.importorskip('transformers', minversion='4.52')
    for name in ('pycocotools', ):
        info = tmp_path / f'{name}-2.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n')
    path = [tmp_path, *(p for p in sys.path if Path(p).name == 'hf')]
    assert 'fine' in python(
        'import trm_ml_mm.models, mmpretrain.apis; print("fine")', *path)
