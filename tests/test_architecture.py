"""The rules of the house: what may import what."""
import ast
import re
import subprocess
from pathlib import Path

import mmengine
import pytest
from tests_support import ROOT

PACKAGE = ROOT / 'trm_ml_mm'
# From the ground up. A room may import rooms of lower floors only.
FLOORS = [
    {'version', 'registry', 'utils'},
    {'labels'},
    {'datasets', 'models', 'evaluation'},
    {'features', 'visualization'},
    {'engine'},
    {'apis', 'annotation'},
    {'demo', 'export', 'report'},
    {'experiments', 'cli'},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules(folder=PACKAGE):
    return {'.'.join(p.relative_to(ROOT).with_suffix('').parts).removesuffix(
        '.__init__'): p for p in folder.rglob('*.py')}


def imports(path, name):
    """Full names of the package's modules that a file imports."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package.split('.')[:len(package.split('.'))
                                             - node.level + 1]
                base = '.'.join([*parents, *([base] if base else [])])
            # `from room import module` names a module too.
            found |= {base, *(f'{base}.{a.name}' for a in node.names)}
    return {n for n in found if n.split('.')[0] == 'trm_ml_mm'}


def room(name):
    parts = name.split('.')
    return parts[1] if len(parts) > 1 else None


GRAPH = {name: imports(path, name) for name, path in modules().items()}


def test_every_room_has_a_floor():
    assert {room(name) for name in GRAPH} - {None} == set(FLOOR)


def test_no_import_from_a_lower_room_to_a_higher_one():
    wrong = [
        (name, target) for name, targets in GRAPH.items() if room(name)
        for target in targets if room(target) and room(target) != room(name)
        and FLOOR[room(target)] >= FLOOR[room(name)]
        and (room(name), room(target)) != ('utils', 'version')]
    assert not wrong


def test_only_tools_import_the_experiments():
    for folder in ('tools', 'trm_ml_mm'):
        for name, path in modules(ROOT / folder).items():
            if any(room(t) == 'experiments' for t in imports(path, name)):
                assert folder == 'tools' or room(name) == 'experiments', name


def test_models_know_no_data_set():
    assert not [name for name, targets in GRAPH.items()
                if room(name) == 'models'
                and any(room(t) == 'datasets' for t in targets)]


def test_no_circle_among_modules():
    known = set(GRAPH)
    edges = {name: {t for t in targets if t in known and t != name
                    # A package's face hands on names of its own modules.
                    and not name.startswith(f'{t}.')}
             for name, targets in GRAPH.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, ' -> '.join([*path[path.index(name):], name])
        if name in done:
            return
        path.append(name)
        for target in edges[name]:
            visit(target)
        done.add(path.pop())

    for name in edges:
        visit(name)


def sources(*folders):
    return [p for folder in folders for p in (ROOT / folder).rglob('*.py')]


def test_unknown_is_no_bare_number_outside_labels():
    """A comparison with -1 that is no index or dimension."""
    for path in sources('trm_ml_mm', 'tools'):
        if path.is_relative_to(PACKAGE / 'labels'):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                assert not re.search(r'[!=]= -1\b', text), (path, text)


@pytest.mark.parametrize('pattern,allowed', [
    (r'os\.replace|\.rename\(', {'utils/io.py'}),
    (r'== (ABSENT|PRESENT)\)\.sum\(0\)',
     {'models/label_statistics.py', 'labels/summary.py',
      'evaluation/metrics.py'}),
    (r"\['method'\]\s*(==|in)|in \w+\['method'\]",
     {'experiments/tables.py', 'experiments/report.py',
      'experiments/results.py'}),  # a config's name
    (r'\._(train_loop|val_loop|test_loop|resume|metainfo|is_init|load_from|'
     r'hooks|get_ori_dataset_idx|cfg_dict)\b', {'utils/mmengine_private.py'}),
    # Files that could run code: each kind is opened in one place.
    (r'torch\.load\(|weights_only=False', {
        'engine/checkpoint.py',
        'engine/hooks/plain_checkpoint.py'}),  # a docstring
    (r'np\.load\(|allow_pickle=True', {'utils/arrays.py',
                                       'features/storage.py'}),
    (r'jit\.load\(', {'models/towers/torchscript.py',  # a docstring
                      'export/torchscript.py'}),  # what was exported here
    (r'import pickle|pickle\.\w', {'models/towers/torchscript.py'}),
    (r'yaml|fromstring\(|\bexec\(|[^.]\beval\(', {
        'utils/xml_files.py'}),
    (r'(?<!_)load_checkpoint\(|find_latest_checkpoint', {'engine/runner.py'}),
    (r'\.double\(\)', {'utils/precision.py'}),  # Apple's GPUs have no fp64
    # The inside of open_clip's image towers.
    (r'attnpool|attn_pool|v_proj|layer4|resblocks|\.trunk\b', {
        'models/towers/image.py', 'models/towers/dense.py',
        'models/towers/last_block.py', 'models/towers/loading.py',
        'models/towers/mini.py', 'models/towers/text.py',
        'models/towers/shared_prefix.py'}),
    # And of its text towers.
    (r'text_projection|ln_final|SimpleTokenizer', {
        'models/towers/text.py', 'models/towers/tokens.py',
        'models/towers/shared_prefix.py', 'models/towers/mini.py'}),
    (r'test_results\.json', {'evaluation/run_record.py',
                             'engine/hooks/report.py'}),  # and a docstring
])
def test_some_things_stand_in_one_place(pattern, allowed):
    found = {str(p.relative_to(PACKAGE)) for p in sources('trm_ml_mm')
             if re.search(pattern, p.read_text())}
    assert found <= allowed


# Where MMEngine can run what a file says, and why nothing of it happens here.
MMENGINE = {
    'config/config.py': 'configs are programs, and only they',
    'runner/runner.py': 'the config text of a checkpoint: SafeRunner drops it',
    'runner/_flexible_runner.py': 'not used',
    'infer/infer.py': 'not used',
    'dist/dist.py': 'what this run\'s own ranks wrote',
    'dataset/base_dataset.py': 'what this process wrote, in memory',
    'fileio/handlers/pickle_handler.py': 'annotation files are read here',
}


def test_what_mmengine_could_run_is_known():
    """A new version with another such place makes this test fail."""
    root = Path(mmengine.__file__).parent
    texts = {str(path.relative_to(root)): path.read_text()
             for path in root.rglob('*.py')}
    risky = re.compile(r'pickle\.loads?\(|fromstring\(|jit\.load\([^)]|'
                       r'np\.load\(|(?<![\w.])(exec|eval)\(')
    found = {name for name, text in texts.items() if risky.search(
        re.sub(r'>>>.*|def \w+\(|".*?torch\.jit\.load\(\)', '', text))}
    assert found <= MMENGINE.keys()
    # PyTorch's loader is safe unless it is told not to be.
    calls = re.compile(r'torch\.load\([^)]*\)')
    loads = [call for text in texts.values() for call in calls.findall(text)]
    assert loads and not any('weights_only=False' in call for call in loads)


def test_the_built_in_words_are_those_that_are_drawn():
    from trm_ml_mm.datasets.scenes.rendering import COLOURS, OUTLINES
    from trm_ml_mm.labels.names import LOOKS, SHAPES
    assert (tuple(COLOURS), tuple(OUTLINES)) == (LOOKS, SHAPES)


def test_every_import_is_declared():
    """In pyproject.toml, or part of Python."""
    import sys
    declared = (ROOT / 'pyproject.toml').read_text().split(
        '[tool.setuptools.dynamic]')[0]
    names = dict(cv2='opencv-python', PIL='pillow', mmcv='mmcv-lite',
                 open_clip='open_clip_torch')
    for path in sources('trm_ml_mm'):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(
                node, ast.Import) else [node.module] if isinstance(
                    node, ast.ImportFrom) and not node.level else []
            for name in (n.split('.')[0] for n in found):
                if name not in sys.stdlib_module_names and (
                        name != 'trm_ml_mm'):
                    assert f'"{names.get(name, name)}' in declared, (
                        path, name)


def test_the_citation_names_this_version():
    from trm_ml_mm import __version__
    assert f'version: {__version__}' in (ROOT / 'CITATION.cff').read_text()
    assert f'## {__version__}' in (ROOT / 'CHANGELOG.md').read_text().replace(
        '[', '').replace(']', '')


def test_help_answers_without_heavy_imports():
    import sys
    for tool in ('train', 'test', 'export', 'cache_features', 'run_grid',
                 'evidence'):
        done = subprocess.run(
            [sys.executable, '-X', 'importtime', f'tools/{tool}.py', '--help'],
            cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and 'usage' in done.stdout
        assert '| mmpretrain' not in done.stderr
