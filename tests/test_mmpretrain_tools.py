"""MMPretrain's tools that read our data sets, hooks and schedules. All others:
tests/mmpretrain_tools.py."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain import FeatureExtractor
from mmpretrain_tools import CASES, row, run_tool, trained

from trm_ml_mm.apis import get_model

IN_CI = ('kfold-cross-valid', 'browse_dataset', 'vis_scheduler', 'get_flops')


@pytest.fixture(scope='module')
def values(tmp_path_factory):
    return trained(tmp_path_factory.mktemp('tools'))


@pytest.mark.parametrize('name', IN_CI)
def test_a_tool_does_what_the_table_says(values, name):
    tool, = (tool for tool in CASES if Path(tool.path).stem == name)
    run_tool(tool, values)


def test_the_feature_extractor_finds_the_map(values):
    model = get_model('trm_ml_scenes.py', str(values['checkpoint']))
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    feats, = FeatureExtractor(model)(image, stage='backbone')
    data = model.data_preprocessor(dict(inputs=torch.from_numpy(
        image).permute(2, 0, 1)[None]))['inputs']
    with torch.no_grad():
        expected = model.backbone(data).dense[0]
    assert len(feats) == 1 and torch.equal(feats[0], expected)


def test_the_page_has_the_table_of_all_tools():
    page = Path(__file__).parents[1] / 'docs/own_project.md'
    text = page.read_text(encoding='utf-8')
    for tool in CASES:
        assert row(tool) in text
