"""Makes a site of files that also read well on plain Git hosting.

A page of docs/ links what it likes in the repository, with relative paths.
On the site such a link leads to

* the page of a Markdown file outside of docs/ (README.md, configs/*/README.md),
* the API page of a module of trm_ml_mm,
* a page that shows the file, for any other file.

The pages of the API are written here too: one for each public module and
package, from its docstrings.
"""
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import griffe
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PACKAGE = 'trm_ml_mm'
# Commands, whose --help is their description, and what is nobody's to call.
NOT_PUBLIC = (f'{PACKAGE}.cli', f'{PACKAGE}.utils.mmengine_private')
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.json': 'json'}
API_NAV = 'api/*'  # stands in mkdocs.yml for the pages of the API

# Code, which has no links, or the target of a link; with its text, if that is
# the name of a page.
TARGET = re.compile(
    r'^(?P<indent> *)(?P<fence>```+|~~~+).*?^(?P=indent)(?P=fence) *$'
    r'|(?P<ticks>`+).+?(?P=ticks)'
    r'|(?P<open>(?:\[(?P<text>[\w./-]+\.md))?\]\(|src=")'
    r'(?P<target>[^)\s"]+)', re.M | re.S)


def outside_pages() -> Dict[Path, str]:
    """Markdown files outside of docs/, and where they are on the site."""
    pages = {path: f'about/{path.stem.lower()}.md'
             for path in ROOT.glob('*.md')}
    for path in (ROOT / 'configs').rglob('README.md'):
        folder = path.parent.relative_to(ROOT).as_posix()
        pages[path] = f'{folder}.md'
    return pages


@lru_cache(1)
def package() -> griffe.Module:
    return griffe.load(PACKAGE, search_paths=[str(ROOT)])


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """A module and those in it, as far as they are public."""
    if module.path not in NOT_PUBLIC:
        yield module
        for name, member in sorted(module.members.items()):
            if not member.is_alias and member.is_module and (
                    not name.startswith(('_', '.'))):
                yield from modules(member)


def api_page(module: griffe.Module) -> str:
    name = module.path.replace('.', '/')
    return f'api/{name}/index.md' if module.is_init_module else (
        f'api/{name}.md')


def first_sentence(thing: griffe.Object) -> str:
    """Of a docstring; the value of a constant that has none."""
    if not thing.docstring:
        value = str(getattr(thing, 'value', ''))
        return f'`{value}`' if 0 < len(value) < 40 else ''
    text = thing.docstring.value
    text = ' '.join(text.split('\n\n')[0].split())
    text = re.sub(r':[a-z]+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text)
    text = re.split(r'(?<=[.]) (?=[A-Z])', text)[0]
    return text.replace('|', r'\|')


def api_text(module: griffe.Module) -> str:
    """What the page of a module says. That of a package lists what can be
    imported from it, and its modules."""
    if not module.is_init_module:
        return f'::: {module.path}\n'
    own = [name for name, member in module.members.items()
           if name[0] != '_' and not member.is_alias and not member.is_module]
    lines = [f'::: {module.path}', '    options:',
             f'      members: {own or "false"}', '']
    names = [name for name in module.exports or () if name[0] != '_']
    if names:
        lines += [f'`from {module.path} import ...`:', '', '| name | |',
                  '|---|---|']
        for name in sorted(names, key=str.lower):
            thing = module[name]
            if thing.is_module and name in thing.members:
                thing = thing[name]  # a function in a module of its name
            thing = thing.final_target if thing.is_alias else thing
            link = os.path.relpath(
                api_page(thing if thing.is_module else thing.module),
                Path(api_page(module)).parent)
            anchor = '' if thing.is_module or not thing.docstring else (
                f'#{thing.path}')
            lines.append(f'| [`{name}`]({link}{anchor}) '
                         f'| {first_sentence(thing)} |')
        lines.append('')
    inner = [m for m in module.members.values() if not m.is_alias
             and m.is_module and m in set(modules(module))]
    if inner:
        lines += ['Modules:', '', '| module | |', '|---|---|']
        for member in sorted(inner, key=lambda m: m.name):
            link = os.path.relpath(api_page(member),
                                   Path(api_page(module)).parent)
            lines.append(f'| [`{member.name}`]({link}) '
                         f'| {first_sentence(member)} |')
    return '\n'.join(lines) + '\n'


def api_nav(module: griffe.Module) -> list:
    """The entries of a package: its own page, then what is in it."""
    entries: List[object] = [api_page(module)]
    for member in (m for m in modules(module) if m.parent is module):
        entries.append({member.name: api_nav(member) if member.is_init_module
                        else api_page(member)})
    return entries


def place(path: Path, places: Dict[Path, str]) -> Optional[str]:
    """Where a file or folder of the repository is on the site."""
    if path.is_dir():
        for name in ('README.md', '__init__.py'):
            if (path / name).is_file():
                return place(path / name, places)
        return None
    if path in places:
        return places[path]
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return None


def title(path: Path) -> str:
    """The first heading of a page."""
    return re.search('^# (.*)', path.read_text('utf-8'), re.M)[1]


def rewrite(text: str, source: Path, page: str,
            places: Dict[Path, str]) -> str:
    """The Markdown of a page with the links that it has on the site."""
    def new(match):
        target = match['target']
        if target is None or re.match('[a-z]+:|#', target):
            return match[0]
        name, sharp, anchor = target.partition('#')
        there = place((source.parent / name).resolve(), places)
        if there is None:  # mkdocs warns
            return match[0]
        opening = match['open']
        if match['text']:
            opening = f'[{title((source.parent / name).resolve())}]('
        name = os.path.relpath(there, os.path.dirname(page) or '.')
        return f'{opening}{name}{sharp}{anchor}'
    return TARGET.sub(new, text)


def linked_files(text: str, source: Path) -> Iterator[Path]:
    for match in TARGET.finditer(text):
        if match['target'] and not re.match('[a-z]+:|#', match['target']):
            path = (source.parent / match['target'].partition('#')[0]
                    ).resolve()
            if path.is_file() and path.is_relative_to(ROOT):
                yield path


def generated(config, name: str, text: str, source: Optional[Path] = None,
              in_nav: bool = True) -> File:
    file = File.generated(
        config, name, content=text, inclusion=InclusionLevel.INCLUDED
        if in_nav else InclusionLevel.NOT_IN_NAV)
    file.repository_path = source
    return file


# What mkdocs calls, in this order.

def on_files(files, config):
    places = outside_pages()
    for module in modules(package()):
        places[Path(module.filepath)] = api_page(module)
        files.append(generated(config, api_page(module), api_text(module)))
    for path, name in outside_pages().items():
        files.append(generated(config, name, path.read_text('utf-8'), path))
    sources = [(Path(file.abs_src_path), file.src_uri) for file in files
               if file.abs_src_path and file.src_uri.endswith('.md')]
    for path, _ in [*sources, *outside_pages().items()]:
        for found in linked_files(path.read_text('utf-8'), path):
            if place(found, places) is None:
                name = found.relative_to(ROOT).as_posix()
                places[found] = f'source/{name}.md'
                code = found.read_text('utf-8')
                files.append(generated(
                    config, places[found], f'# {name}\n\n'
                    f'````{LANGUAGES.get(found.suffix, "text")}\n{code}````\n',
                    in_nav=False))
    config.extra['places'] = places
    for section in config.nav:
        for name, entry in section.items():
            if entry == API_NAV:
                section[name] = api_nav(package())
    return files


def on_page_markdown(markdown, page, config, files):
    file = page.file
    source = getattr(file, 'repository_path', None) or (
        file.abs_src_path and Path(file.abs_src_path))
    if not source:
        return markdown
    return rewrite(markdown, Path(source), file.src_uri,
                   config.extra['places'])
