"""Shared by several test files."""
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
