"""A trained model, and a table of scenes with blanks."""
import pytest
from tests_support import build_small, trm_ml

from trm_ml_mm.apis import load_model
from trm_ml_mm.demo.viewer import Viewer


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    build_small(folder, {'train_cfg.max_epochs': 1}).train()
    return folder / 'run/epoch_1.pth'


@pytest.fixture(scope='session')
def viewer(checkpoint):
    return Viewer(load_model(checkpoint))


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """A folder with ``images/`` and ``labels.csv``."""
    folder = tmp_path_factory.mktemp('scenes') / 'own'
    assert trm_ml(['make-scenes', '--out', folder, '--images', '12']) == 0
    return folder
