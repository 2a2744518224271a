"""The tutorial notebook runs, and the file has what a run prints."""
import json
import os
import re

import pytest
from tests_support import ROOT

nbclient = pytest.importorskip('nbclient', reason='needs nbclient')
pytest.importorskip('ipykernel', reason='needs ipykernel')
nbformat = pytest.importorskip('nbformat', reason='needs nbformat')

FILE = ROOT / 'docs/tutorial.ipynb'
PICTURES = {'image/png', 'image/jpeg'}
FOLDERS = '/tmp/', '/home/', '/Users/', 'site-packages', str(ROOT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def kinds(cell):
    """What a cell shows: names of streams, and kinds of data."""
    return [output.get('name') or sorted(output.get('data', ()))
            for output in cell.outputs]


def words(notebook):
    """All outputs but the pictures."""
    return '\n'.join(
        output.get('text', '') + json.dumps({
            kind: data for kind, data in output.get('data', {}).items()
            if kind not in PICTURES})
        for cell in code_cells(notebook) for output in cell.outputs)


def pictures(notebook):
    return [kind for cell in code_cells(notebook) for output in cell.outputs
            for kind in output.get('data', ()) if kind in PICTURES]


@pytest.fixture(scope='module')
def committed():
    return nbformat.read(FILE, 4)


@pytest.fixture(scope='module')
def executed(committed, tmp_path_factory):
    notebook = nbformat.from_dict(json.loads(json.dumps(committed)))
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    folder = tmp_path_factory.mktemp('notebook')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, (
            str(ROOT), os.environ.get('PYTHONPATH')))))
        nbclient.NotebookClient(  # an error in a cell is an error here
            notebook, timeout=600, kernel_name='python3',
            resources=dict(metadata=dict(path=str(folder)))).execute()
    assert list(folder.iterdir()) == []  # its files were elsewhere
    return notebook


def test_it_runs_and_shows_what_the_file_shows(executed, committed):
    for fresh, old in zip(code_cells(executed), code_cells(committed),
                          strict=True):
        assert fresh.source == old.source
        assert kinds(fresh) == kinds(old), fresh.source
    assert len(pictures(executed)) >= 5


def test_the_file_was_executed_from_top_to_bottom(committed):
    nbformat.validate(committed)
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == [
        *range(1, len(cells) + 1)]
    for cell in cells:
        last = cell.source.splitlines()[-1]
        if re.match(r'print\(|show\(|plt\.show|pd\.', last):
            assert cell.outputs, cell.source
    assert len(pictures(committed)) >= 5
    assert FILE.stat().st_size < 400_000


@pytest.mark.parametrize('copy', ['committed', 'executed'])
def test_no_output_names_a_folder_or_warns(copy, request):
    notebook = request.getfixturevalue(copy)
    for folder in FOLDERS:
        assert folder not in words(notebook)
    assert not {'stderr'} & {name for cell in code_cells(notebook)
                             for name in kinds(cell) if type(name) is str}


def test_its_answers_help(executed):
    """What the text says of filling in and asking is so in this run."""
    text = words(executed)
    right = [float(value) for value in re.findall(
        r'<td>(\d+\.\d)%</td>\\n\s+<td>\d+\.\d%</td>', text)]
    assert len(right) == 2 and min(right) > 90
    table = code_cells(executed)[-2].outputs[-1].data['text/plain']
    before, drawn, unsure = (float(line.split()[-1])
                             for line in table.splitlines()[1:])
    assert unsure > before and unsure > drawn


def test_links_of_the_text_lead_somewhere(committed):
    found = [target for cell in committed.cells
             if cell.cell_type == 'markdown'
             for target in re.findall(r'\]\(([^)#]+)', cell.source)]
    assert found
    for target in found:
        assert (FILE.parent / target).exists(), target
