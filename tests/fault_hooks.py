"""Imported by the trainings of faults.py."""
import errno
import os

from mmengine.hooks import Hook

from trm_ml_mm.registry import HOOKS


@HOOKS.register_module()
class TellHook(Hook):
    """Says when the training begins, and in which process."""

    def before_train(self, runner):
        # one write, on a line of its own: ranks and logs share the pipe
        os.write(1, f'\nTRAINING {runner.rank} {os.getpid()}\n'.encode())


if 'FULL_DISK_AT' in os.environ:
    replace, writes = os.replace, []

    def full(*args):
        """The n-th file that is written finds no room."""
        writes.append(args)
        if len(writes) == int(os.environ['FULL_DISK_AT']):
            raise OSError(errno.ENOSPC, 'No space left on device')
        return replace(*args)

    os.replace = full
