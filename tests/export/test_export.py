"""Files that predict what the model predicts."""
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tests_support import ROOT

from trm_ml_mm.apis import LoadedModel, MultiLabelInferencer
from trm_ml_mm.apis.model import build_model
from trm_ml_mm.cli import export as command
from trm_ml_mm.engine import complete, describe
from trm_ml_mm.engine.description import KEY
from trm_ml_mm.export import evaluate, export_model, inputs, model, open_file
from trm_ml_mm.export.probabilities import Scores

NAMES = ['red circle', 'blue star', 'striped heart']
LOSS = dict(type='trm_ml_mm.PartialAsymmetricLoss')
REGION = dict(type='trm_ml_mm.TextRegionMatchingHead', loss=LOSS)
RESIZE = dict(type='Resize', scale=[96, 96], interpolation='bicubic')


def on_clip(head, arch='mini', image_size=96, **backbone):
    return dict(
        type='trm_ml_mm.CLIPClassifier', head=head,
        backbone=dict(type='trm_ml_mm.CLIPPromptBackbone', arch=arch,
                      image_size=image_size, classes=NAMES, **backbone))


def head_of(name, **options):
    return dict(type=f'trm_ml_mm.{name}', loss=LOSS, **options)


RESNET = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[120.] * 3, std=[60.] * 3, to_rgb=False),
    backbone=dict(type='ResNet', depth=18, num_stages=4, base_channels=8,
                  out_indices=(3, )),
    head=dict(REGION, num_classes=3, in_channels=64,
              text=dict(classes=NAMES, arch='mini', align=True)))
WITH_MAPS = {
    'region': on_clip(REGION, prompt=dict(learnable=False)),
    'query decoder': on_clip(head_of('QueryDecoderHead', start='text')),
    'pixel': on_clip(head_of('TextPixelHead'), text_residual=.1,
                     prompt=dict(pair=True, context=2)),
    'learned tower': on_clip(REGION, frozen=False),
    'half tower': on_clip(REGION, tower_dtype='bfloat16'),
    'another backbone': RESNET,
}
WITHOUT_MAPS = {
    'image': on_clip(head_of('TextImageHead'), image_size=128, pooled=True),
    'probe': on_clip(head_of('LinearProbeHead'), pooled=True),
    'zero-shot': on_clip(dict(type='trm_ml_mm.ZeroShotHead')),
}


def load(config, steps=None, meta=None):
    """As load_model gives it, without a file."""
    cfg = Config(dict(model=config, default_scope='mmpretrain'))
    built = build_model(cfg).eval()
    with torch.no_grad():  # as if it had learned something
        for p in built.head.parameters():
            p.add_(.05 * torch.randn_like(p))
    found = complete(describe(cfg), built)
    steps = steps or found.pipeline or [RESIZE]
    return LoadedModel(built, cfg, found._replace(pipeline=steps), meta or {})


def images(count=9):
    """Smooth images of several sizes, BGR."""
    rng = np.random.RandomState(0)
    return [cv2.resize(rng.randint(0, 256, (9, 7, 3), np.uint8), size,
                       interpolation=cv2.INTER_CUBIC)
            for size in [(80, 120), (131, 97), (96, 96)] * (count // 3)]


def scores_of(loaded, pictures):
    """What the package predicts, in the order of the classes."""
    predict = MultiLabelInferencer(loaded, device='cpu')
    rows = [{label['name']: label['score'] for label in result['labels']}
            for result in predict(pictures)]
    return np.array([[row[name] for name in NAMES] for row in rows])


def own_size(pictures, size=(96, 96)):
    """uint8 input of a file: RGB, resized by OpenCV."""
    rows = [cv2.resize(p, size, interpolation=cv2.INTER_CUBIC)
            for p in pictures]
    return np.stack(rows)[..., ::-1].transpose(0, 3, 1, 2).copy()


@pytest.mark.parametrize('name', [*WITH_MAPS, *WITHOUT_MAPS])
def test_every_head_can_be_exported(name, tmp_path):
    maps = name in WITH_MAPS
    config = (WITH_MAPS if maps else WITHOUT_MAPS)[name]
    loaded, path = load(config), tmp_path / 'deep' / 'model.pt'
    report = export_model(loaded, path, 'torchscript', maps=maps,
                          preprocess=True, check_images=images(3), rounds=0)
    assert report.images == 3 and report.size == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]
    run, facts = open_file(path, 'torchscript')
    size = config['backbone'].get('image_size', 96)
    batch = own_size(images(), (size, size))
    expected = scores_of(loaded, images())
    if name == 'half tower':  # the file is more exact than the model
        expected = scores_of(loaded._replace(
            model=model.in_full_precision(loaded.model)), images())
    assert expected.std() > 1e-3
    for chosen in (batch[:1], batch[:7], batch):  # any batch size
        found = run(chosen)
        assert len(found) == len(facts['outputs']) == 2 + maps
        assert np.abs(found[0] - expected[:len(chosen)]).max() < 1e-5
        assert np.allclose(found[0], 1 / (1 + np.exp(-found[1])), atol=1e-6)
        if maps:
            assert found[2].shape[:2] == found[0].shape
            assert np.allclose(found[2].sum((2, 3)), 1, atol=1e-5)
    # A file has no text tower, and the model still has its own.
    assert not any('transformer' in key for key in
                   torch.jit.load(path).state_dict())
    assert len(scores_of(loaded, images(3))) == 3


@pytest.fixture(scope='module')
def onnx_file(tmp_path_factory):
    """An ONNX file with everything inside, its model, the report."""
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    loaded = load(WITH_MAPS['region'])
    path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    report = export_model(loaded, path, 'onnx', maps=True, preprocess=True,
                          check_images=images(3), rounds=1)
    return path, loaded, report


def test_an_onnx_file_agrees_on_photographs(onnx_file, request):
    onnxruntime = pytest.importorskip('onnxruntime')
    path, loaded, _ = onnx_file
    folder = request.getfixturevalue('sample_data') / 'coco_sample/val2017'
    photos = [cv2.imread(str(p)) for p in sorted(folder.glob('*.jpg'))[:50]]
    assert len(photos) == 50
    expected = scores_of(loaded, photos)
    run = onnxruntime.InferenceSession(path)
    batch = own_size(photos)
    for size in (1, 7):
        found = np.concatenate([
            run.run(['scores'], {'image': batch[i:i + size]})[0]
            for i in range(0, 50, size)])
        assert np.abs(found - expected).max() < 1e-4
    # As they are, resized inside: pixels differ by 1 of 255 at most.
    for photo, scores in zip(photos, expected):
        whole = photo[None, ..., ::-1].transpose(0, 3, 1, 2).copy()
        found = run.run(['scores'], {'image': whole})[0][0]
        assert np.abs(found - scores).max() < 5e-3


def test_an_onnx_file_says_what_it_is(onnx_file):
    onnx = pytest.importorskip('onnx')
    path, loaded, report = onnx_file
    assert set(report.differences) == {'scores', 'logits', 'maps'}
    assert 0 < report.differences['scores'] < 1e-4 and report.resizing < 1e-2
    assert [row.batch for row in report.speed] == [1, 8]
    proto = onnx.load(path)
    facts = json.loads(proto.metadata_props[0].value)
    assert facts['classes'] == NAMES and facts['thresholds'] == [.5] * 3
    assert facts['resizing'] == dict(where='inside', steps=[RESIZE])
    assert facts['input']['size'] is None
    assert list(facts['outputs']) == [o.name for o in proto.graph.output]
    assert facts['input']['name'] == proto.graph.input[0].name
    # Nothing of this machine.
    assert str(ROOT).encode() not in path.read_bytes()
    # The text is a constant; no tower that would compute it.
    assert path.stat().st_size < 4.5e6


def test_the_example_of_the_docs_runs(onnx_file, tmp_path):
    path, loaded, _ = onnx_file
    text = (ROOT / 'docs/export.md').read_text()
    code = re.search(r'```python\n(.*?)```', text, re.S)[1]
    assert len([line for line in code.splitlines() if line]) <= 12
    (tmp_path / 'model.onnx').write_bytes(path.read_bytes())
    picture = images(3)[1]
    Image.fromarray(picture[..., ::-1]).save(tmp_path / 'photo.png')
    code = code.replace('photo.jpg', 'photo.png')
    code += 'import sys; assert "trm_ml_mm" not in sys.modules'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split(' ', 2) for line in done.stdout.splitlines()]
    assert [name for *_, name in lines] == NAMES
    for (score, word, _), own in zip(lines, scores_of(loaded, [picture])[0]):
        assert abs(float(score) - own) < 5e-3
        assert word == ('present' if float(score) >= .5 else 'absent')


def test_torch_export_takes_normalised_images(tmp_path):
    """And a ViT, which attends by PyTorch's fused operators."""
    (tmp_path / 'TinyViT.json').write_text(json.dumps(dict(
        embed_dim=128, quick_gelu=True,
        vision_cfg=dict(image_size=64, patch_size=16, width=64, layers=2,
                        head_width=32),
        text_cfg=dict(context_length=24, vocab_size=49408, width=32, heads=2,
                      layers=1))))
    open_clip.add_model_config(tmp_path / 'TinyViT.json')
    loaded = load(on_clip(REGION, 'TinyViT', 64, pooled=True))
    path = tmp_path / 'model.pt2'
    export_model(loaded, path, 'torch_export', check_images=images(3),
                 rounds=0)
    run, facts = open_file(path, 'torch_export')
    about = facts['input']
    assert about['size'] == [64, 64] and about['channels'] == 'RGB'
    assert facts['resizing']['where'] == 'before'
    mean, std = (np.array(about[k]).reshape(3, 1, 1) for k in ('mean', 'std'))
    batch = ((own_size(images(), (64, 64)) - mean) / std).astype(np.float32)
    expected = scores_of(loaded, images())
    for size in (1, 7):
        assert np.abs(run(batch[:size])[0] - expected[:size]).max() < 1e-5


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(80, 300), (33, 20), (96, 64), (640, 480)])
def test_resizing_is_that_of_opencv(mode, size):
    image = np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8)
    kind = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC)[mode]
    expected = cv2.resize(image, (64, 96), interpolation=kind)
    found = inputs.resize(torch.from_numpy(image).permute(2, 0, 1)[None]
                          .float(), (96, 64), mode)
    difference = np.abs(found[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 1
    if size == (96, 64):
        assert difference.max() == 0


def test_eight_bits_are_smaller_and_nearly_as_good(tmp_path):
    onnx = pytest.importorskip('onnx')
    loaded, path = load(WITH_MAPS['region']), tmp_path / 'int8.onnx'
    report = export_model(loaded, path, precision='int8', rounds=0,
                          calibrate_on=images(), check_images=images(3))
    assert 1e-4 < report.differences['scores'] < .1
    assert report.size < 1.5e6
    assert open_file(path, 'onnx')[1]['precision'] == 'int8'
    # Convolutions are; nothing of the head is.
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ('Conv', 'MatMul', 'Gemm'):
            from_8_bits = {makers[name].op_type for name in node.input[:2]
                           if name in makers} == {'DequantizeLinear'}
            assert from_8_bits == (node.op_type == 'Conv')


def test_half_precision_is_half_as_large(tmp_path):
    for name in ('region', 'another backbone'):
        loaded, path = load(WITH_MAPS[name]), tmp_path / 'half.pt'
        full = export_model(loaded, path, 'torchscript', rounds=0)
        half = export_model(loaded, path, 'torchscript', precision='fp16',
                            rounds=0)
        assert half.size < .8 * full.size
        assert 1e-5 < half.differences['scores'] < .02
        weights = torch.jit.load(path).state_dict()
        assert {v.dtype for k, v in weights.items() if 'region' in k} == {
            torch.float}
        assert torch.half in {v.dtype for v in weights.values()}


def test_a_file_that_disagrees_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Scores, 'forward', lambda self, logits: logits.tanh())
    path = tmp_path / 'model.pt'
    path.write_text('what was there')
    with pytest.raises(ValueError, match='does not agree with the model: a '):
        export_model(load(WITH_MAPS['region']), path, 'torchscript')
    assert path.read_text() == 'what was there'
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_that_decides_by_values_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Scores, 'forward', lambda self, logits: (
        logits.sigmoid() if logits.sum() > 0 else logits.sigmoid() / 2))
    with pytest.raises(ValueError, match='cannot write this model as torch_e'):
        export_model(load(WITHOUT_MAPS['zero-shot']), tmp_path / 'model.pt2',
                     'torch_export')
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_crops_stays_outside(tmp_path):
    steps = [dict(type='ResizeEdge', scale=110),
             dict(type='CenterCrop', crop_size=96)]
    loaded, path = load(WITH_MAPS['region'], steps), tmp_path / 'model.pt'
    report = export_model(loaded, path, 'torchscript', preprocess=True,
                          check_images=images(3), rounds=0)
    assert np.isnan(report.resizing)
    facts = open_file(path, 'torchscript')[1]
    assert facts['input']['size'] == [96, 96]
    assert facts['resizing'] == dict(where='before', steps=steps)


def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch):
    path = tmp_path / 'model.onnx'
    loaded = load(WITHOUT_MAPS['probe'])
    with pytest.raises(ValueError, match='looks at the whole image'):
        export_model(loaded, path, 'torchscript', maps=True)
    with pytest.raises(ValueError, match='ZeroShotHead has no map'):
        export_model(load(WITHOUT_MAPS['zero-shot']), path, 'torchscript',
                     maps=True)
    with pytest.raises(ValueError, match='belong together'):
        export_model(loaded, path, precision='int8')
    with pytest.raises(ValueError, match='for ONNX files, not for torch_exp'):
        export_model(loaded, path, 'torch_export', precision='int8',
                     calibrate_on=images(3))
    with pytest.raises(ValueError, match='format must be .* got \'tflite\''):
        export_model(loaded, path, 'tflite')
    edge = [dict(type='ResizeEdge', scale=96)]
    with pytest.raises(ValueError, match='images of several sizes'):
        export_model(load(WITH_MAPS['region'], edge), path, 'torchscript')
    padded = load(RESNET)
    padded.model.data_preprocessor.pad_size_divisor = 64
    with pytest.raises(ValueError, match='a multiple of 64'):
        export_model(padded, path, 'torchscript')
    monkeypatch.setattr('trm_ml_mm.export.onnx.LIMIT', 1000)
    pytest.importorskip('onnx')
    with pytest.raises(ValueError, match='one ONNX file holds 2'):
        export_model(loaded, path)
    for name in ('onnx', 'onnxruntime'):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=r'trm_ml_mm\[export\]'):
                export_model(loaded, path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def checkpoint(tmp_path):
    """A file as a training writes it, of the built-in classes."""
    from trm_ml_mm.labels import class_names
    loaded = load(dict(on_clip(REGION), backbone=dict(
        on_clip(REGION)['backbone'], classes=list(class_names('scenes')))))
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=loaded.model.state_dict(), message_hub={},
                    meta={KEY: loaded.description.to_plain()}), path)
    return path


def run(monkeypatch, capsys, *arguments):
    """Output and exit status of the command."""
    monkeypatch.setattr('sys.argv', ['export.py', *map(str, arguments)])
    try:
        command.main()
        status = 0
    except SystemExit as end:
        status = end.code
    done = capsys.readouterr()
    return status, ' '.join((done.out + done.err).split())


def test_the_command_prints_agreement_speed_and_map(
        checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'model.pt'
    few = 'test_dataloader.dataset.num_images=24'
    status, text = run(
        monkeypatch, capsys, checkpoint, '--out', out, '--maps', '--format',
        'torchscript', '--rounds', 1, '--evaluate',
        ROOT / 'configs/trm_ml_scenes.py', '--cfg-options', few)
    assert status == 0 and out.is_file(), text
    for words in ('on 14 images, in batches of 1 and 7', 'scores', 'maps',
                  'Milliseconds for an image', 'mAP on 24 labelled images'):
        assert words in text
    assert '(+0.00)' in text


def test_bad_input_ends_the_command_with_a_sentence(
        checkpoint, tmp_path, monkeypatch, capsys):
    text = tmp_path / 'text.pth'
    text.write_text('hello')
    out = tmp_path / 'model.pt'
    start = (checkpoint, '--out', out, '--format', 'torchscript')
    config = ROOT / 'configs/trm_ml_scenes.py'
    for arguments, words in (
            ((text, '--out', out), 'is not a checkpoint'),
            (('none.pth', '--out', out), 'Checkpoint none.pth does not'),
            ((checkpoint, '--out', text / 'a.pt', '--format', 'torchscript'),
             str(text)),
            ((*start, '--check-images', tmp_path / 'no'), 'does not exist'),
            ((*start, '--int8'), '--int8 needs --calibrate-on'),
            ((*start, '--calibrate-on', 'a'), '--calibrate-on is for --int8'),
            ((*start, '--cfg-options', 'epochs=1'), 'the config of --evaluate'),
            ((*start, '--evaluate', config, '--cfg-options', 'scene_set=1',
              'test_dataloader.dataset.num_images=2'),
             'evaluate on the classes'),
    ):
        status, printed = run(monkeypatch, capsys, *arguments)
        assert status == 2 and words in printed, printed
        assert 'Traceback' not in printed and not out.exists()


def test_a_test_set_of_another_size_is_refused(tmp_path):
    from trm_ml_mm.datasets import Scenes
    loaded, path = load(WITH_MAPS['region']), tmp_path / 'model.pt'
    export_model(loaded, path, 'torchscript', check_images=images(3), rounds=0)
    data = Scenes('test', 2, size=64, test_mode=True, pipeline=[
        dict(type='trm_ml_mm.RenderScene'), dict(type='PackInputs')])
    with pytest.raises(ValueError, match='64 x 64 pixels, and the file takes '):
        evaluate(loaded, path, 'torchscript', data)
