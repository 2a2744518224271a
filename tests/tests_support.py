"""Shared by several test files."""
import contextlib
import io
import os
import runpy
import socket
import subprocess
import sys
import traceback
import uuid
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import MMLogger

from trm_ml_mm.cli import main, next_command
from trm_ml_mm.engine import build_runner

ROOT = Path(__file__).parents[1]

SMALL = {
    'train_dataloader.num_workers': 0,
    'val_dataloader.num_workers': 0,
    'test_dataloader.num_workers': 0,
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.dataset.num_images': 48,
    'val_dataloader.dataset.num_images': 24,
    'test_dataloader.dataset.num_images': 24,
    'model.head.prototypes.warmup_images': 32,
    'train_cfg.max_epochs': 2,
    'default_hooks.checkpoint.max_keep_ckpts': -1,
}


def build_small(folder, options=None, work_dir='run',
                config='trm_ml_scenes.py', **kwargs):
    """A small runner of the built-in set; keywords as build_runner."""
    options = {
        **{k: v for k, v in SMALL.items()
           if not any(k.startswith(f'{o}.') for o in options or {})},
        'experiment_name': uuid.uuid4().hex, **(options or {})
    }
    return build_runner(str(ROOT / 'configs' / config),
                        work_dir=str(folder / work_dir), options=options,
                        **kwargs)


def trm_ml(arguments):
    """Exit status of the console command, in this process."""
    before = sys.argv
    sys.argv = ['trm-ml', *map(str, arguments)]
    try:
        main.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
        next_command.COMMAND_NAMES.clear()  # of a process that is trm-ml
        MMLogger._instance_dict.clear()
    return 0


class Done(NamedTuple):
    """A tool that has ended."""

    status: int
    out: str
    err: str


def call_tool(script, arguments):
    """A script of tools/ in this process, where the libraries are imported
    already; any error ends it as in a process of its own."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [str(script), *map(str, arguments)]
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(str(script), run_name='__main__')
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        except Exception:
            traceback.print_exc()
            status = 1
        finally:
            sys.argv = before
            MMLogger._instance_dict.clear()
    return Done(status, out.getvalue(), err.getvalue())


def small_backbones():
    """Overrides that make the COCO configs small and free of downloads."""
    return {
        'model.backbone.init_cfg': None,
        'model.head.num_classes': 3,
        'model.head.prototypes.warmup_images': 8,
        'model.head.text.classes': ['red circle', 'blue star', 'green heart'],
        'model.head.text.arch': 'mini',
        'model.head.text.weights': None,
    }


def run(command, **env):
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, 'OMP_NUM_THREADS': '1',
             'PYTHON': sys.executable, **env})
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    return result.stdout + result.stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def ranks(script, count, *arguments):
    """A script on CPU ranks; its whole output."""
    return run([sys.executable, '-m', 'torch.distributed.run',
                f'--nproc_per_node={count}', f'--master_port={free_port()}',
                script, *map(str, arguments)])


def flat(value, where=''):
    """{where: leaf} of nested containers."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {where: value}
    return {k: v for key, part in items
            for k, v in flat(part, f'{where}.{key}').items()}
