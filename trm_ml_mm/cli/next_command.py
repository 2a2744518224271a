"""The command that a tool proposes next: one that can be pasted as it is."""
import shlex
from typing import Mapping, Sequence


def next_command(tool: str, *arguments: str,
                 given: Sequence[str] = (),
                 options: Mapping[str, str] = {}) -> str:  # noqa: B006
    """A command line, quoted for a shell.

    Args:
        tool: Name of the tool: 'train'.
        arguments: Before the options of the config.
        given: Options of the config that the user gave, as they were given:
            'epochs=20'.
        options: Further ones; they win over those that were given.
    """
    last = dict(entry.split('=', 1) for entry in given) | dict(options)
    added = [f'{name}={value}' for name, value in last.items()]
    words = ['python', f'tools/{tool}.py', *map(str, arguments),
             *(['--cfg-options', *added] if added else [])]
    return shlex.join(words)
