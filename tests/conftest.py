import gc
import json
import os

# Tests compare bits, and start more ranks than a machine has GPUs. Before
# anything asks for a GPU; TRM_ML_TESTS_ON_GPU=1 leaves it visible.
if 'TRM_ML_TESTS_ON_GPU' not in os.environ:
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

# Before anything starts threads: with several workers, one each.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')

from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import config
from tests_support import ROOT, build_small

# MMEngine formats the config of each run for the eye, by yapf: .1 to .3 s.
# Runs in processes of their own still do.
config.FormatCode = lambda text, **_: (text, True)
config.FormatCode.remembers = True


def pytest_terminal_summary(terminalreporter):
    """List the commands of README and docs, and how each was run."""
    found = [entry for report in terminalreporter.stats.get('passed', ())
             for name, entry in report.user_properties if name == 'command']
    if not found:
        return
    terminalreporter.section('Commands of README and docs')
    for page, line, how in found:
        terminalreporter.write_line(f'{page}: {line}  [{how}]')
    terminalreporter.write_line(f'{len(found)} commands')


@pytest.fixture(scope='module', autouse=True)
def _little_garbage():
    """MMEngine collects garbage for each data set it makes: half a second
    every time, unless what is imported by now is left out."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope='session')
def sample_data():
    """Folder with real COCO and VOC samples, where there is one."""
    path = Path(os.environ.get('TRM_ML_SAMPLE_DATA', ROOT / '../shared/data'))
    if not path.is_dir():
        pytest.skip('no sample images here: set TRM_ML_SAMPLE_DATA to a '
                    'folder with coco_sample/ and voc_sample/')
    return path


@pytest.fixture(scope='session')
def tiny_clip(tmp_path_factory):
    """Name of a tiny CLIP in open_clip's registry that reads every word."""
    path = tmp_path_factory.mktemp('arch') / 'TinyCLIP.json'
    path.write_text(json.dumps(dict(
        embed_dim=32,
        vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], width=8),
        text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2,
                      layers=1))))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture
def small_run(tmp_path):
    """:func:`build_small` in a folder of this test."""
    return partial(build_small, tmp_path)
