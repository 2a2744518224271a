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


def test_results_page_says_how_far_ahead_trm_ml_is(context):
    """The sentences below the tables have the figures of results.json too."""
    page = ' '.join((ROOT / 'docs/results.md').read_text(
        encoding='utf-8').split())
    names = {'lead': context['lead'], 'pixel': context['lead_text_pixel']}
    for lead in names.values():
        assert f'`{lead["name"]}`' in page
        assert f'is {lead["least"]:.2f} to {lead["most"]:.2f}.' in page
        assert lead['beyond'] or lead['within']
    lead = names['lead']
    assert f'in these columns: {", ".join(lead["beyond"])}.' in page
    assert f'in these: {", ".join(lead["within"])}.' in page
    assert ('TRM-ML is ahead of every' in page) == context['ahead']
    parts = {'few_labels', 'other_tower', 'scenes_500', 'scenes_20000'}
    assert parts <= context['leads'].keys()
    for part in parts:
        text = context['leads'][part]
        assert text and f'TRM-ML minus `{lead["name"]}`: {text}.' in page


def test_leads_are_those_of_the_margin_table(context):
    """Against the cells of another table."""
    row = cells(context['margins'])[context['lead']['name']]
    margins = [float(cell.split()[0]) for cell in row[1:]]
    assert min(margins) == pytest.approx(context['lead']['least'], abs=.005)
    assert max(margins) == pytest.approx(context['lead']['most'], abs=.005)
    settings = cells(context['margins'])['TRM-ML minus'][1:]
    for name, cell in zip(settings, row[1:]):
        margin, deviations = (float(x) for x in re.findall(r'\d+\.\d+', cell))
        assert (name in context['lead']['beyond']) == (margin > deviations)


def test_readme_has_figures_of_the_headline_table(context):
    """Ours and the strongest baseline's in the first column."""
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    expected = cells(context['headline'])
    assert expected['method'][1] == '10%'
    trained = [row for name, row in expected.items()
               if name not in ('method', 'trm_ml', 'base')
               and not set(name) <= set(':-')]
    best = max(float(row[1].split()[0]) for row in trained)
    ours = expected['trm_ml'][1].split()[0]
    sentence, = re.findall(r'On other scenes.*?[)]\.', readme, re.S)
    assert re.findall(r'\d+\.\d+', sentence) == [ours, f'{best:.2f}']
    assert len(trained) == 7 and 'seven' in sentence
