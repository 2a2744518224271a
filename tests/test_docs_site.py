"""The documents as a site: it builds without a warning, no link of it leads
nowhere, and it loads nothing from elsewhere."""
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from tests_support import ROOT

import trm_ml_mm.apis

for needed in ('mkdocs', 'material', 'mkdocstrings'):
    pytest.importorskip(
        needed, reason='builds the site: pip install "trm_ml_mm[docs]"')


class Page(HTMLParser):
    """Anchors, links and what is loaded."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = {''}, set(), set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(filter(None, (attrs.get('id'),
                                          attrs.get('name'))))
        if attrs.get('href'):
            (self.links if tag == 'a' else self.loaded).add(attrs['href'])
        if attrs.get('src'):
            self.loaded.add(attrs['src'])


def test_the_site(tmp_path):
    """One test, so that the site is built once."""
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir',
         str(tmp_path)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, 'NO_COLOR': '1',
                                       'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stdout[-5000:]
    assert not re.findall('^(?:WARNING|ERROR).*', done.stdout, re.M)
    pages = {path: Page(path) for path in tmp_path.rglob('*.html')
             if path.name != '404.html'}
    for check in CHECKS:
        check(tmp_path, pages)


def every_page_is_there(folder, pages):
    for path in (ROOT / 'docs').glob('*.md'):
        assert (folder / f'{path.stem}.html').is_file()
    assert not list(folder.rglob('_site'))


def no_link_leads_nowhere(folder, pages):
    for path, page in pages.items():
        for target in page.links | page.loaded:
            if re.match('[a-z]+:', target):
                continue  # elsewhere
            name, _, anchor = target.partition('#')
            there = (path.parent / unquote(name)).resolve() if name else path
            there = there / 'index.html' if there.is_dir() else there
            where = f'{path.relative_to(folder)}: {target}'
            assert there.is_file(), where
            if anchor and there.suffix == '.html':
                assert unquote(anchor) in pages[there].anchors, where


def nothing_is_loaded_from_elsewhere(folder, pages):
    for path, page in pages.items():
        assert not [target for target in page.loaded
                    if re.match('(https?:)?//', target)], path
    for path in folder.rglob('*.css'):
        assert not re.search(r'url\([\'"]?(https?:)?//',
                             path.read_text(encoding='utf-8')), path


def links_to_the_repository_lead_to_pages(folder, pages):
    """Out of docs/: a module, a page of configs/, a config, a root page."""
    for page, target in [
            ('method.html', 'api/trm_ml_mm/models/region.html'),
            ('data.html', 'configs/trm_ml.html'),
            ('own_project.html', 'source/configs/trm_ml_vit_coco.py.html'),
            ('extending.html', 'about/contributing.html'),
            ('configs/baselines.html', 'tuning.html'),
            ('about/readme.html', 'results.html')]:
        links = {(folder / page).parent / link.partition('#')[0]
                 for link in pages[folder / page].links}
        assert (folder / target) in {link.resolve() for link in links}
    shown = (folder / 'source/configs/trm_ml_vit_coco.py.html').read_text()
    assert 'VisionTransformer' in shown


def the_api_has_every_public_name(folder, pages):
    listed = pages[folder / 'api/trm_ml_mm/apis/index.html']
    for name in trm_ml_mm.apis.__all__:
        thing = getattr(trm_ml_mm.apis, name)
        page = f'{thing.__module__.replace(".", "/")}.html'
        anchor = f'{thing.__module__}.{name}'
        assert anchor in pages[folder / 'api' / page].anchors
        assert any(link.endswith(f'#{anchor}') for link in listed.links)


def the_api_has_every_public_module(folder, pages):
    for path in (ROOT / 'trm_ml_mm').rglob('*.py'):
        name = path.relative_to(ROOT)
        if {'.mim', 'cli', 'mmengine_private.py'} & set(name.parts):
            continue
        page = name.with_name('index' if path.name == '__init__.py'
                              else path.stem)
        assert (folder / 'api' / f'{page}.html').is_file(), name


def roles_of_sphinx_are_links(folder, pages):
    for path in (folder / 'api').rglob('*.html'):
        assert not re.search(':(func|class|meth|mod):', path.read_text()), path
    path = folder / 'api/trm_ml_mm/models/prototypes.html'
    assert ('#trm_ml_mm.models.prototypes.pseudo_label_thresholds'
            in pages[path].links)


def the_search_finds_what_the_pages_say(folder, pages):
    index = json.loads((folder / 'search/search_index.json').read_text())
    found = {entry['location'].partition('#')[0] for entry in index['docs']
             if 'is not finite after step' in entry['title']}
    assert found == {'troubleshooting.html'}
    assert any(entry['location'].endswith('#trm_ml_mm.apis.model.load_model')
               for entry in index['docs'])


CHECKS = (every_page_is_there, no_link_leads_nowhere,
          nothing_is_loaded_from_elsewhere,
          links_to_the_repository_lead_to_pages,
          the_api_has_every_public_name, the_api_has_every_public_module,
          roles_of_sphinx_are_links, the_search_finds_what_the_pages_say)
