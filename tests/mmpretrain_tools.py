"""MMPretrain's tools on configs of this package.

    python tests/mmpretrain_tools.py     # the table of docs/own_project.md
"""
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import mmpretrain
from tests_support import ROOT, build_small

TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
CONFIG = str(ROOT / 'configs/trm_ml_scenes.py')
ONE_CLASS = 'no: it is for one class per image'


class Tool(NamedTuple):
    """A tool, how it is called, and what comes of it."""

    path: str  # below .mim/tools
    arguments: str  # with {config}, {checkpoint}, {log}, {out} and {image}
    remark: str = ''
    error: Optional[str] = None  # part of its last words; None: it works
    makes: Optional[str] = None  # a file, below {out}
    needs: Sequence[str] = ()  # modules; without them it is not run


CASES = [
    Tool('train.py', '{config} --work-dir {out}/train --cfg-options '
         'train_cfg.max_epochs=1 param_scheduler=[] '
         'train_dataloader.dataset.dataset.num_images=32 '
         'val_dataloader.dataset.num_images=16 '
         'test_dataloader.dataset.num_images=16',
         "this package's own also fills in `classes='dataset'` and understands "
         '`epochs`, `lr`, `image_size`, `arch`', makes='train/epoch_1.pth'),
    Tool('test.py', '{config} {checkpoint} --work-dir {out}/test --out '
         '{out}/predicted.pkl --cfg-options '
         'test_dataloader.dataset.num_images=16', makes='predicted.pkl'),
    Tool('kfold-cross-valid.py', '{config} --num-splits 2 --fold 0 --seed 1 '
         '--work-dir {out}/folds --cfg-options train_cfg.max_epochs=1 '
         'param_scheduler=[] train_dataloader.dataset.dataset.num_images=64',
         'a fold is tested on its known labels',
         makes='folds/fold0/epoch_1.pth'),
    Tool('visualization/browse_dataset.py', '{config} --not-show -n 2 '
         '-m original -o {out}/browse',
         'its other modes fail with a new Matplotlib, with every config',
         makes='browse/0.png'),
    Tool('misc/verify_dataset.py', '{config} --phase val', 'the built-in set '
         'has no files; with files, `--phase val` works, and for the training '
         'set `tools/inspect_data.py` does the same', error='load image from'
         ),
    Tool('misc/print_config.py', '{config}'),
    Tool('visualization/vis_scheduler.py', '{config} --not-show -s '
         '{out}/rate.jpg', makes='rate.jpg'),
    Tool('visualization/vis_cam.py', '{image} {config} {checkpoint}',
         'no: it follows gradients through the backbone, and CLIP is frozen; '
         'the head has saliency maps. It works with another backbone; it '
         'needs `setuptools<81` and `grad-cam<1.5`',
         error='list index out of range',  # it finds no layer to follow
         needs=('pkg_resources', 'pytorch_grad_cam')),
    Tool('visualization/vis_tsne.py', '{config} --checkpoint {checkpoint} '
         '--work-dir {out}/tsne', ONE_CLASS, error='gt_label'),
    Tool('analysis_tools/get_flops.py', '{config} --shape 96',
         'counts the backbone; frozen weights are no parameters'),
    Tool('analysis_tools/analyze_logs.py', 'plot_curve {log} --keys loss '
         '--out {out}/loss.jpg', makes='loss.jpg'),
    Tool('analysis_tools/eval_metric.py', '{out}/predicted.pkl --metric '
         'type=trm_ml_mm.MultiLabelAP'),
    Tool('analysis_tools/analyze_results.py', '{config} {out}/predicted.pkl '
         '--out-dir {out}/results',
         f'{ONE_CLASS}; `tools/test.py --show-dir` draws predictions',
         error='gt_label'),
    Tool('analysis_tools/confusion_matrix.py', '{config} {out}/predicted.pkl',
         f'{ONE_CLASS}; `tools/test.py --per-class` has every class',
         error='gt_label'),
]


def row(tool: Tool) -> str:
    """Of the table."""
    words = tool.remark if tool.error else '; '.join(
        filter(None, ['works', tool.remark]))
    return f'| `{tool.path}` | {words} |'


def trained(folder: Path) -> dict:
    """What the arguments of the tools stand for, after a small training."""
    build_small(folder, {'train_cfg.max_epochs': 1,
                         'default_hooks.logger.interval': 1}).train()
    (folder / 'image.png').write_bytes(
        (ROOT / 'docs/pictures/results_saliency.jpg').read_bytes())
    return dict(config=CONFIG, checkpoint=folder / 'run/epoch_1.pth',
                log=next(folder.glob('run/*/vis_data/2*.json')),
                out=folder, image=folder / 'image.png')


def run_tool(tool: Tool, values: dict) -> str:
    """Its output; raises if it does not end as the table says."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(TOOLS / tool.path),
         *tool.arguments.format(**values).split()],
        cwd=values['out'], text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'MPLBACKEND': 'Agg', 'OMP_NUM_THREADS': '1'})
    works = done.returncode == 0 and tool.error is None
    failed = done.returncode != 0 and tool.error is not None and (
        tool.error in done.stdout[-500:])
    assert works or failed, f'{tool.path}: {done.stdout[-2000:]}'
    if tool.makes is not None:
        assert (Path(values['out']) / tool.makes).is_file(), tool.path
    return done.stdout


def main():
    with tempfile.TemporaryDirectory() as folder:
        values = trained(Path(folder))
        print('| tool | |')
        print('|---|---|')
        for tool in CASES:
            if all(map(find_spec, tool.needs)):
                run_tool(tool, values)
            else:
                print(f'not run: {tool.path} needs {tool.needs}',
                      file=sys.stderr)
            print(row(tool), flush=True)


if __name__ == '__main__':
    main()
