"""No link of README and docs leads nowhere."""
import re
from pathlib import Path

import pytest
from tests_support import ROOT

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'),
                *(ROOT / 'configs').rglob('*.md')])
LINK = re.compile(r'(?<!`)\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)"')


def prose(path):
    """A page without its code."""
    text = re.sub(r'^ *```.*?^ *```', '', path.read_text(encoding='utf-8'),
                  flags=re.M | re.S)
    return re.sub(r'`[^`\n]*`', lambda m: m[0].replace('[', '('), text)


def anchors(path):
    """What a heading is called in a link, as GitHub does it."""
    found, count = set(), {}
    for title in re.findall('^#+ +(.*)$', prose(path), re.M):
        title = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', title).lower()
        name = re.sub(r'[^\w\- ]', '', title).replace(' ', '-')
        count[name] = count.get(name, -1) + 1
        found.add(f'{name}-{count[name]}' if count[name] else name)
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in filter(None, sum(LINK.findall(prose(page)), ())):
        if re.match('[a-z]+:', target):
            continue  # elsewhere
        name, _, anchor = target.partition('#')
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f'{page.name}: {target}'
        if anchor and path.suffix == '.md':
            assert anchor in anchors(path), f'{page.name}: {target}'


def test_every_page_is_found_from_the_readme():
    reached, new = set(), [ROOT / 'README.md']
    while new:
        page = new.pop()
        reached.add(page)
        for target in filter(None, sum(LINK.findall(prose(page)), ())):
            path = Path(page.parent, target.partition('#')[0]).resolve()
            if path.suffix == '.md' and path not in reached and path.exists():
                new.append(path)
    assert {p for p in PAGES if p.parent == ROOT / 'docs'} <= reached


def test_every_picture_is_shown():
    shown = {(page.parent / target).resolve() for page in PAGES
             for target in filter(None, sum(LINK.findall(prose(page)), ()))}
    pictures = set((ROOT / 'docs/pictures').iterdir())
    assert pictures <= shown, sorted(p.name for p in pictures - shown)
