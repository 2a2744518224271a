"""The published tables agree with the published rows."""
import json
import re

import pytest
from tests_support import ROOT

from trm_ml_mm.experiments.report import results_context

TABLES = ('headline', 'margins', 'cost', 'matching', 'added', 'changed',
          'without_relations')


@pytest.fixture(scope='module')
def context():
    rows = json.loads((ROOT / 'docs/results.json').read_text(encoding='utf-8'))
    return results_context(rows)


def cells(table):
    """Rows of a Markdown table by the name in their first column."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in table.splitlines() if line.startswith('|')]
    return {row[0]: row for row in rows}


@pytest.mark.parametrize('name', TABLES)
def test_results_page_has_the_tables_of_results_json(context, name):
    page = (ROOT / 'docs/results.md').read_text(encoding='utf-8')
    assert context[name].startswith('|')
    assert context[name] in page


@pytest.mark.parametrize('folder, rows', [('trm_ml', 1), ('baselines', 7)])
def test_pages_of_configs_have_rows_of_the_headline_table(context, folder,
                                                          rows):
    found = cells((ROOT / f'configs/{folder}/README.md').read_text())
    expected = cells(context['headline'])
    same = [name for name, row in expected.items() if found.get(name) == row]
    assert len([name for name in same if name != 'method']) == rows
    assert not [name for name, row in found.items()
                if name in expected and name not in same
                and not set(name) <= set(':-')]


def test_readme_has_the_headline_table_of_results_json(context):
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    section = re.search(r'^## Does it work\?\n(.*?)^## ', readme, re.M | re.S)
    found = cells(section.group(1))
    expected = cells(context['headline'])
    assert 'method' in expected and 'trm_ml' in expected
    for name, row in expected.items():
        if not set(name) <= set(':-'):  # the line below the header
            assert found.get(name) == row
