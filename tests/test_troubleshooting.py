"""docs/troubleshooting.md quotes messages that there are."""
import ast
import re

import pytest
from tests_support import ROOT

PAGE = (ROOT / 'docs/troubleshooting.md').read_text(encoding='utf-8')
ENTRIES = re.findall(r'^### `(.*)`$', PAGE, re.M)
# What prints: it raises, or goes to the screen or the log.
PRINTS = {'say', 'print', 'print_log', 'exit', 'error', 'warning', 'warn'}
GAP = '\0'  # a value in an f-string


def text_of(node):
    """The text of an expression, with gaps; None if it has none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return ''.join(text_of(value) or GAP for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_of(node.left) or GAP) + (text_of(node.right) or GAP)
    return None


def is_printed(node):
    if isinstance(node, ast.Raise):
        return True
    name = getattr(node, 'func', None)
    return getattr(name, 'attr', getattr(name, 'id', '')) in PRINTS


def messages():
    """Every text of the package that can be part of a message: in a ``raise``
    or a call that prints, or in a value or a function that one of them in the
    same file uses by its name."""
    found = set()
    for path in (ROOT / 'trm_ml_mm').rglob('*.py'):
        if '.mim' in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        parts = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        parts.setdefault(target.id, []).append(node.value)
        for node in ast.walk(tree):
            if is_printed(node):
                inside = list(ast.walk(node))
                for name in [n.id for n in inside if isinstance(n, ast.Name)]:
                    for value in parts.get(name, ()):
                        inside.extend(ast.walk(value))
                found.update(filter(None, map(text_of, inside)))
    return found


MESSAGES = messages()


def is_quoted(entry, message):
    """Do the words of an entry stand in a message, in their order? '...' in
    the entry may stand for anything."""
    words = [re.escape(part.strip()) for part in entry.split('...')]
    return re.search('.*'.join(words), message, re.S) and not re.search(
        GAP, ''.join(words))


@pytest.mark.parametrize('entry', ENTRIES)
def test_an_entry_is_a_message_of_the_package(entry):
    assert max(map(len, entry.split('...'))) > 12, 'too little is quoted'
    assert any(is_quoted(entry, message) for message in MESSAGES)


def test_the_check_can_fail():
    assert not any(is_quoted('No label is knwon', m) for m in MESSAGES)
    assert is_quoted('has ... cells', f'line {GAP} has {GAP} cells')
    assert not is_quoted('has 3 cells', f'line {GAP} has {GAP} cells')


def test_every_entry_says_why_and_what_to_do():
    assert len(ENTRIES) == len(set(ENTRIES)) >= 40
    assert PAGE.count('* **Why.** ') == len(ENTRIES)
    assert PAGE.count('* **What to do.** ') == len(ENTRIES)
    counts = re.findall(r'^\| \[(.*)\]\(#.*\) \| (\d+) messages \|$', PAGE,
                        re.M)
    for name, count in counts:
        section = PAGE.split(f'\n## {name}\n')[1].split('\n## ')[0]
        assert section.count('* **Why.** ') == int(count), name
    assert sum(int(count) for _, count in counts) == len(ENTRIES)
