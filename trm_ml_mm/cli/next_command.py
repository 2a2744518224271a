"""The command that a tool proposes next: one that can be pasted as it is."""
import shlex
from typing import Mapping, Optional, Sequence

# Script in tools/ -> name of the command of ``trm-ml``, if that was started.
COMMAND_NAMES: dict = {}


def next_command(tool: str, *arguments: str,
                 given: Sequence[str] = (),
                 options: Optional[Mapping[str, str]] = None) -> str:
    """A command line, quoted for a shell.

    Args:
        tool: Name of the script in ``tools/``. If this program was started as
            ``trm-ml``, the line says so too.
        arguments: What stands before the options of the config.
        given: Options of the config that the user gave, as they were given:
            'epochs=20'.
        options: Further ones; they win over those that were given.
    """
    start = ['python', f'tools/{tool}.py']
    if tool in COMMAND_NAMES:
        start = ['trm-ml', COMMAND_NAMES[tool]]
    last = dict(entry.split('=', 1) for entry in given) | dict(options or {})
    added = [f'{name}={value}' for name, value in last.items()]
    return shlex.join([*start, *arguments,
                       *(['--cfg-options', *added] if added else [])])
