"""Files that are whole or not there."""
import atexit
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


@register_backend(name='atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files, written beside their place and then renamed into it.

    A kill while writing leaves the previous file whole. MMEngine's
    CheckpointHook removes an outdated checkpoint before it writes the new
    one, and says which is the latest after that; here what is removed goes
    only with the write after the next, or at the end of the process.

    A config asks for it with ``backend_args=dict(backend='atomic')`` in its
    CheckpointHook.
    """

    _outdated, _replaced = set(), set()  # of this process, of all instances

    def put(self, obj: bytes, filepath) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.{path.name}.{os.getpid()}.part')
        with open(part, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        self._outdated.discard(path)
        self._replaced.discard(path)
        self.clear()
        self._replaced.update(self._outdated)
        self._outdated.clear()

    def remove(self, filepath) -> None:
        self._outdated.add(Path(filepath))

    @classmethod
    def clear(cls) -> None:
        """Delete what a later file has long replaced."""
        while cls._replaced:
            cls._replaced.pop().unlink(missing_ok=True)


atexit.register(AtomicLocalBackend.clear)
