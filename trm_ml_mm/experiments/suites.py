"""The benchmark suite: which configs run, in which settings, how often."""
from pathlib import Path
from typing import List

from .plan import Job, plan

OURS, ORACLE, BASE = 'trm_ml', 'trm_ml_oracle', 'base'
NO_RELATIONS = 'no_relations'
ZERO_SHOT = ('zero_shot_global', 'zero_shot_dense')
TRAINED = ('linear_probe', 'text_image', 'text_pixel', 'query_decoder',
           'query_decoder_text')  # configs/baselines that are trained
BASELINES = (*ZERO_SHOT, *TRAINED)
SETTINGS = (0.1, 0.3, 0.5, 0.7, 0.9, 'single_positive')
QUICK_SETTINGS = (0.1, 0.5, 'single_positive')
SEEDS, ABLATION_SEEDS = 4, 3
# Nothing is evaluated before the last epoch.
OPTIONS = ['train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=10',
           'default_hooks.checkpoint.save_best=None',
           'default_hooks.logger.interval=1000']
VIEWS = 4


def method_of(job: Job) -> str:
    """Name in tables: that of the config, shorter for the main one."""
    if job.known == 'all':
        return ORACLE
    return OURS if job.method == 'trm_ml_scenes' else job.method


def plan_suite(configs: Path, quick: bool = False) -> List[Job]:
    """Every job of the suite.

    A seed draws mask and initialisation, and seeds alternate between two scene
    sets.

    Args:
        configs: The folder ``configs/``.
        quick: Only the method, the base and the baselines, in three settings,
            with one seed.
    """
    ours = configs / 'trm_ml_scenes.py'
    main = [ours, *(configs / f'baselines/{name}.py' for name in TRAINED),
            configs / 'ablations/base.py']
    ablations = [path for path in sorted(configs.glob('ablations/*.py'))
                 if path not in main]
    main, ablations = [*map(str, main)], [*map(str, ablations)]
    settings = QUICK_SETTINGS if quick else SETTINGS
    # All labels known: the oracle that missing labels are compared with.
    first = plan(main, settings, [0]) + plan([str(ours)], ['all'], [0])
    second = [] if quick else plan(ablations, settings, [0])
    return [
        job._replace(seed=seed, data=(f'scene_set={seed % 2}', ))
        for jobs, seeds in ((first, 1 if quick else SEEDS),
                            (second, ABLATION_SEEDS))
        for seed in range(seeds) for job in jobs
    ]


def is_ablation(job: Job) -> bool:
    """Whether a report may lack this run."""
    path = Path(job.config)
    return path.parent.name == 'ablations' and path.stem != BASE
