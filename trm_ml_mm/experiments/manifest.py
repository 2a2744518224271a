"""The manifest of a run's work dir: what is run there, and by which code."""
import hashlib
import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

from mmengine.config import Config

from trm_ml_mm.utils.io import read_json, write_text

from .plan import Job

FILE = 'grid_job.json'
FORMAT = 2  # 1 had no 'format' entry


def write_manifest(job: Job, out: Union[str, Path], manifest: dict) -> None:
    """Write what :func:`check_manifests` returned for a job, into its work
    dir."""
    path = job.work_dir(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(manifest, indent=1))


def read_manifest(job: Job, out: Union[str, Path]) -> Optional[dict]:
    """The manifest of a job's last start; None if it never started."""
    path = job.work_dir(out) / FILE
    return _read(path) if path.is_file() else None


def check_manifests(jobs: Sequence[Job], out: Union[str, Path],
                    options: Sequence[str], features: bool) -> Dict[Job, dict]:
    """Check that all runs whose rows would be in one table are of one kind:
    these jobs, and all others in ``out``.

    Args:
        jobs: Of :func:`~trm_ml_mm.experiments.plan.plan`.
        out: Folder of all runs.
        options: ``--cfg-options`` that all runs share, as 'key=value'.
        features: Whether the runs train from cached features.

    Returns:
        The manifest of each job, without the version of the code.

    Raises:
        ValueError: If a work dir in ``out`` belongs to a run with other
            options, with or without cached features, with another content of
            its config, or of another version of this package.
    """
    contents = {config: _content(config)
                for config in {job.config for job in jobs}}
    manifests = {
        job: dict(format=FORMAT, **dict(job._asdict(), data=list(job.data),
                                        variant=list(job.variant)),
                  options=list(options), content=contents[job.config],
                  features=features) for job in jobs
    }
    by_method = {job.method: contents[job.config] for job in jobs}
    expected = dict(manifests)
    others = other_jobs(jobs, out)  # refuses those of other versions
    if not all(job.variant for job in jobs):  # a search has its own table
        for job, manifest in others:
            expected[job] = dict(
                manifest, options=list(options), features=features,
                content=by_method.get(job.method, manifest['content']))
    for job, manifest in expected.items():
        found = read_manifest(job, out)
        if found and (dict(found, config='', code='') !=
                      dict(manifest, config='', code='')):
            raise ValueError(
                f'{job.work_dir(out)} holds a run with other options, with or '
                'without cached features, or of another state of its config '
                f'(see {FILE}): take another --out, or delete it.')
    return manifests


def other_jobs(jobs: Sequence[Job], out: Union[str, Path]
               ) -> List[Tuple[Job, dict]]:
    """Jobs in ``out`` besides these, with their manifests. Variants of a
    search are left out: they are no rows of their method.

    Raises:
        ValueError: If a manifest is of another version of this package.
    """
    asked = {job._replace(config='') for job in jobs}
    found = []
    for path in sorted(Path(out).rglob(FILE)):
        manifest = _read(path)
        job = Job(**{k: tuple(manifest[k]) if k in ('data', 'variant')
                     else manifest[k] for k in Job._fields})
        if not job.variant and job._replace(config='') not in asked:
            found.append((job, manifest))
    return found


def _read(path: Path) -> dict:
    manifest = read_json(path, 'manifest of a run')
    if manifest.get('format') != FORMAT:
        raise ValueError(
            f'{path} is of another version of trm_ml_mm, whose runs must not '
            'be mixed with those of this one: take another --out, or delete '
            f'{path.parent}.')
    return manifest


def _content(config: str) -> str:
    """Fingerprint of what a config says, wherever the file is."""
    text = Config.fromfile(config).pretty_text
    return hashlib.sha256(text.encode()).hexdigest()[:16]
