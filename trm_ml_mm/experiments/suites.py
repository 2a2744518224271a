"""The benchmark suite: which configs run, in which settings, how often."""
from pathlib import Path
from typing import List, NamedTuple

from .plan import Job, plan

OURS, BASE = 'trm_ml', 'base'
NO_RELATIONS = 'no_relations'
ZERO_SHOT = ('zero_shot_global', 'zero_shot_dense')
TRAINED = ('linear_probe', 'text_image', 'text_pixel', 'query_decoder',
           'query_decoder_text')  # configs/baselines that are trained
BASELINES = (*ZERO_SHOT, *TRAINED)
SETTINGS = (0.1, 0.3, 0.5, 0.7, 0.9, 'single_positive')
QUICK_SETTINGS = (0.1, 0.5, 'single_positive')
ABLATION_SETTINGS = (0.1, 0.9, 'single_positive')
FEW_LABELS = (0.01, 0.02, 0.05)
SIZE_SETTINGS = (0.1, 'single_positive')
SIZES = (500, 20000)  # training scenes, beside those of the config
OTHER_TOWER = 'mini-wide'
# Settings were chosen on scene set 0.
SCENE_SETS = (2, 3)
# Nothing is evaluated before the last epoch.
OPTIONS = ['train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=10',
           'default_hooks.checkpoint.save_best=None',
           'default_hooks.logger.interval=1000']


class Part(NamedTuple):
    """A part of the report: its jobs differ in method, setting and seed."""

    name: str
    jobs: List[Job]
    views: int = 4  # augmented views per training image in the feature cache


def method_of(job: Job) -> str:
    """Name in tables: that of the config, shorter for the main one."""
    return OURS if job.method == 'trm_ml_scenes' else job.method


def plan_suite(configs: Path, quick: bool = False) -> List[Part]:
    """Every job of the suite.

    A seed draws mask, initialisation and batch order; seeds alternate between
    two scene sets.

    Args:
        configs: The folder ``configs/``.
        quick: Only the method, the base and the baselines, in three settings,
            with one seed.
    """
    main = [configs / 'trm_ml_scenes.py', configs / 'ablations/base.py',
            *(configs / f'baselines/{name}.py' for name in TRAINED)]
    ablations = [path for path in sorted(configs.glob('ablations/*.py'))
                 if path not in main]
    main, ablations = [*map(str, main)], [*map(str, ablations)]

    def jobs(methods, settings, seeds, *data):
        return [
            job._replace(seed=seed, data=(
                f'scene_set={SCENE_SETS[seed % 2]}', *data))
            for seed in range(seeds) for job in plan(methods, settings, [0])]

    # All labels known: what missing labels cost.
    if quick:
        return [Part('main', jobs(main, [*QUICK_SETTINGS, 'all'], 1))]
    return [
        Part('main', jobs(main, [*SETTINGS, 'all'], 4)),
        Part('ablations', jobs(ablations, ABLATION_SETTINGS, 2)),
        Part('few_labels', jobs(main, FEW_LABELS, 2)),
        Part('other_tower', jobs(main, ABLATION_SETTINGS, 2,
                                 f'arch={OTHER_TOWER}')),
        *(Part(f'scenes_{size}', jobs(
            main, SIZE_SETTINGS, 2,
            f'train_dataloader.dataset.dataset.num_images={size}'),
               views=4 if size < 5000 else 2) for size in SIZES)]


def is_needed(part: Part) -> bool:
    """Whether a report must have these runs."""
    return part.name == 'main'
