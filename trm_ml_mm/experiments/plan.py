"""Which runs there are: method x label setting x seed."""
import argparse
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

from trm_ml_mm.engine import load_config
from trm_ml_mm.labels import check_known
from trm_ml_mm.utils.mmengine_private import OptionAction

Setting = Union[float, str]  # of PartialLabelDataset's ``known``


class Job(NamedTuple):
    """One run: a config and the options that make it this run."""

    method: str  # name of the config
    config: str
    known: Setting
    seed: int
    data: Tuple[str, ...] = ()  # options that choose the data, 'key=value'
    variant: Tuple[str, ...] = ()  # options that a search varies

    def work_dir(self, out: Union[str, Path]) -> Path:
        """Where the run goes, below the folder of all runs."""
        setting = str(self.known).replace(os.sep, '_')
        inner = map(short_option, (*self.data, *self.variant))
        return Path(out, self.method, setting, *inner, f'seed{self.seed}')

    def options(self) -> Dict[str, object]:
        """The run's ``--cfg-options``. A seed draws the mask and the
        initialisation; seed 0 uses the published mask of the protocol."""
        return {
            'train_dataloader.dataset.known': self.known,
            'train_dataloader.dataset.seed': self.seed or None,
            'randomness.seed': self.seed,
            **split_options((*self.data, *self.variant)),
        }


def split_options(options: Sequence[str]) -> Dict[str, str]:
    """['key=value'] -> {'key': 'value'}."""
    return dict(option.split('=', 1) for option in options)


def parse_options(options: Sequence[str]) -> Dict[str, object]:
    """['key=value'] as ``--cfg-options`` reads it."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    arguments = ['--cfg-options', *options] if options else []
    return parser.parse_args(arguments).cfg_options or {}


def short_option(option: str) -> str:
    """'model.head.logit_scale=0.5' -> 'logit_scale=0.5'."""
    key, value = option.split('=', 1)
    return f'{key.rsplit(".", 1)[-1]}={value}'


def plan(configs: Sequence[str], known: Sequence[Setting],
         seeds: Sequence[int],
         data: Sequence[Tuple[str, ...]] = ((), )) -> List[Job]:
    """All runs. Seeds vary slowest, so that early rows cover every setting.

    Args:
        configs: Config files; their names are the names of the methods.
        known: Label settings.
        seeds: Of mask and initialisation.
        data: Choices of data, each as options: ``('scene_set=1', )``.

    Raises:
        ValueError: If a label setting does not exist, two configs have the
            same file name, a config has nothing to train, or it has no
            PartialLabelDataset, whose ``known`` could be set.
        FileNotFoundError: If a config does not exist.
    """
    for setting in known:
        check_known(setting)
    methods = {}
    for config in configs:
        other = methods.setdefault(Path(config).stem, config)
        if other != config:
            raise ValueError(f'{other} and {config} have the same file name, '
                             'which is the name of their rows: rename one.')
        cfg = load_config(config)
        head = (cfg.get('model') or {}).get('head') or {}
        if str(head.get('type')).endswith('ZeroShotHead'):
            raise ValueError(f'{config} has nothing to train, so it cannot be '
                             'part of a grid: test it with tools/test.py. '
                             'Every run records zero-shot CLIP as well.')
        dataset = cfg.train_dataloader.dataset
        if not str(dataset.type).endswith('PartialLabelDataset'):
            raise ValueError(
                f'The training set of {config} is a {dataset.type}, so its '
                'known labels cannot be set: wrap it in '
                'trm_ml_mm.PartialLabelDataset.')
    return [
        Job(method, config, setting, seed, chosen) for seed in seeds
        for chosen in data for setting in known
        for method, config in methods.items()
    ]
