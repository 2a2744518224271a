"""Names from a stranger's file, where a program might take them for more."""


def printable(text: str) -> str:
    """Without control characters, which a terminal would obey: each is shown
    as its escape, such as ``\\x1b``."""
    return ''.join(c if c.isprintable() else
                   c.encode('unicode_escape').decode() for c in text)


def plain_cell(text: str) -> str:
    """For a CSV cell: a spreadsheet takes what begins with ``= + - @`` for a
    formula, so an apostrophe goes before it."""
    text = printable(text)
    return f"'{text}" if text[:1] in '=+-@' and text else text
