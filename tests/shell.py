"""A shell for the blocks of the documents.

``bash`` runs them, as a reader's does. What they call in ``tools/`` runs in
this process, because importing the libraries takes ten seconds each time. A
stand-in for ``python`` on the PATH asks for it through a socket.
"""
import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional

from tests_support import ROOT, call_tool, free_port, trm_ml

BLOCK = re.compile(r'^(?P<indent> *)```bash\n(?P<text>.*?)^(?P=indent)```$',
                   re.M | re.S)
# Asks the process of the tests to run a tool. Any other program is run by the
# real interpreter, several ranks as two; and so are grids, whose runs would
# inherit the environment of the first grid.
STAND_IN = '''#!{python} -IS
import json, os, re, socket, sys
name, *arguments = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
is_tool = name == 'trm-ml' or (arguments and os.path.realpath(
    arguments[0]).startswith({tools!r}))
if is_tool:
    place = socket.socket(socket.AF_UNIX)
    place.connect({socket!r})
    with place.makefile('rw') as file:
        file.write(json.dumps([name, arguments, os.getcwd(),
                               dict(os.environ)]) + '\\n')
        file.flush()
        status, text = json.loads(file.readline())
    if status is not None:
        sys.stdout.write(text)
        sys.exit(status)
arguments = [re.sub('(nproc_per_node=)[0-9]+', r'\\g<1>2', re.sub(
    '(master_port=).*', r'\\g<1>{port}', one)) for one in arguments]
os.execv({python!r}, [{python!r}, *arguments])
'''


class Call(NamedTuple):
    """A call of a tool from the shell."""

    name: str  # of the script in tools/, or of the command of trm-ml
    arguments: List[str]


def blocks(page: Path) -> List[str]:
    """The shell blocks of a page."""
    return [textwrap.dedent(match['text']) for match in BLOCK.finditer(
        page.read_text(encoding='utf-8'))]


def lines(block: str) -> List[str]:
    """The lines of a block, those that go on in the next one joined."""
    joined = re.sub(r' *\\\n *', ' ', block)
    return [line for line in joined.splitlines() if line.strip()]


class Shell:
    """A folder in which blocks are run.

    Args:
        folder: Where the reader is.
        before: Called with each :class:`Call` first; True: it is done.
    """

    def __init__(self, folder: Path,
                 before: Callable[[Call], bool] = lambda call: False):
        self.folder, self.before = folder, before
        self.programs = folder / '.programs'
        self.programs.mkdir()
        self.address = str(self.programs / 'socket')
        text = STAND_IN.format(python=sys.executable, socket=self.address,
                               tools=str(ROOT / 'tools'), port=free_port())
        for name in ('python', 'trm-ml'):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)

    def run(self, script: str) -> str:
        """What the script prints.

        Raises:
            AssertionError: If a command of it fails.
        """
        with socket.socket(socket.AF_UNIX) as place, \
                open(self.programs / 'out', 'w+') as out:
            place.bind(self.address)
            place.listen()
            place.settimeout(.05)
            shell = subprocess.Popen(
                ['bash', '-euo', 'pipefail', '-c', script], cwd=self.folder,
                stdout=out, stderr=subprocess.STDOUT, env={
                    **os.environ, 'OMP_NUM_THREADS': '1', 'PATH':
                    f'{self.programs}{os.pathsep}{os.environ["PATH"]}'})
            while shell.poll() is None:
                with contextlib.suppress(TimeoutError):
                    caller, _ = place.accept()
                    self._answer(caller)
            Path(self.address).unlink()
            out.seek(0)
            text = out.read()
        assert shell.returncode == 0, f'{script}\n{text[-6000:]}'
        return text

    def _answer(self, caller: socket.socket) -> None:
        caller.settimeout(None)
        with caller, caller.makefile('rw') as file:
            name, arguments, cwd, environment = json.loads(file.readline())
            own, here = dict(os.environ), os.getcwd()
            text = io.StringIO()
            os.environ.update(environment)
            os.chdir(cwd)
            try:
                with contextlib.redirect_stdout(text), \
                        contextlib.redirect_stderr(text):
                    status = self._call(name, arguments)
            finally:
                os.chdir(here)
                os.environ.clear()
                os.environ.update(own)
            file.write(json.dumps([status, text.getvalue()]) + '\n')

    def _call(self, name: str, arguments: List[str]) -> Optional[int]:
        if name == 'trm-ml':
            if self.before(Call(arguments[0], arguments[1:])):
                return 0
            return trm_ml(arguments)
        script = os.path.abspath(arguments[0])
        if self.before(Call(Path(script).stem, arguments[1:])):
            return 0
        if Path(script).stem == 'run_grid':
            return None
        done = call_tool(script, arguments[1:])
        print(done.out + done.err)
        # Made samples deserve warnings; the shell would end at them.
        warned = done.status == 1 and Path(script).stem == 'inspect_data'
        return 0 if warned else done.status
