"""Files that are whole or not there."""
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


@register_backend(name='atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files, written beside their place and then renamed into it.

    A kill while writing leaves the previous file whole. MMEngine's
    CheckpointHook removes an outdated checkpoint before it writes the new
    one; here what is removed goes only after the next file was written.

    A config asks for it with ``backend_args=dict(backend='atomic')`` in its
    CheckpointHook.
    """

    _outdated = set()  # of this process; the hook and the writer differ

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
        while self._outdated:
            self._outdated.pop().unlink(missing_ok=True)

    def remove(self, filepath) -> None:
        self._outdated.add(Path(filepath))
