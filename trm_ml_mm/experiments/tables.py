"""Tables of runs: means and deviations over seeds.

A row is a dict with 'method', 'known', 'seed', perhaps 'scene_set', and
metrics in percent. Runs on different scene sets are of different difficulty,
which is not noise: deviations are computed within scene sets.
"""
import json
import statistics
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import pandas
from tabulate import tabulate

from trm_ml_mm.utils.io import atomic_write, write_text

from .run import METRICS

Run = Tuple[int, int]  # (scene set, seed)


def run_of(row: dict) -> Run:
    """What tells runs of one method and setting apart."""
    return row.get('scene_set', -1), row['seed']


def setting_name(known: Union[float, str]) -> str:
    """0.1 -> '10%', 'single_positive' -> 'single positive'."""
    if isinstance(known, str):
        return known.replace('_', ' ')
    return f'{100 * known:g}%'


def in_order(settings) -> List[Union[float, str]]:
    """Proportions, then rules by name."""
    return sorted(settings, key=lambda k: (isinstance(k, str), k))


def mean_and_deviation(values: Dict[Run, float]
                       ) -> Tuple[float, Optional[float]]:
    """Mean over runs, and sample standard deviation over seeds.

    With several scene sets, the deviation is the root of the mean variance
    within them.

    Args:
        values: By :func:`run_of`; at least one.

    Returns:
        The deviation is None if no scene set has two seeds.
    """
    within = {}
    for (scene_set, _), value in values.items():
        within.setdefault(scene_set, []).append(value)
    variances = [statistics.variance(v) for v in within.values() if len(v) > 1]
    return statistics.fmean(values.values()), (
        statistics.fmean(variances)**0.5 if variances else None)


def cell(values: Dict[Run, float], runs: int) -> str:
    """'mean ± deviation', with '(n=...)' if some of ``runs`` are missing; '-'
    without values."""
    if not values:
        return '-'
    mean, deviation = mean_and_deviation(values)
    text = f'{mean:.2f}'
    if deviation is not None:
        text += f' ± {deviation:.2f}'
    return text if len(values) == runs else f'{text} (n={len(values)})'


def table(rows: Sequence[dict], metric: str = 'mAP') -> List[List[str]]:
    """The table that papers print: a line per method, a column per setting,
    and the average over proportions.

    See :func:`cell`. The average is taken over each seed's proportions first.

    Args:
        rows: See above.
        metric: The metric in the cells.

    Returns:
        Lines of cells, the header first.
    """
    settings = in_order({row['known'] for row in rows})
    proportions = [k for k in settings if not isinstance(k, str)]
    runs = sorted({run_of(row) for row in rows})
    lines = [['method', *map(setting_name, settings)]]
    if len(proportions) > 1:
        lines[0].append('average')
    for method in dict.fromkeys(row['method'] for row in rows):
        of = {(row['known'], run_of(row)): row[metric] for row in rows
              if row['method'] == method}
        line = [method]
        for setting in settings:
            line.append(cell({run: of[setting, run] for run in runs
                              if (setting, run) in of}, len(runs)))
        if len(proportions) > 1:
            complete = [r for r in runs
                        if all((k, r) in of for k in proportions)]
            line.append(cell({
                run: statistics.fmean(of[k, run] for k in proportions)
                for run in complete}, len(runs)))
        lines.append(line)
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the header first, as a Markdown table."""
    header, *body = lines
    return tabulate(
        body, header, tablefmt='pipe', disable_numparse=True,
        colalign=['left'] + ['right'] * (len(header) - 1)) + '\n'


def save_tables(rows: Sequence[dict], out: Union[str, Path]) -> str:
    """Write ``rows.json``, ``rows.csv`` and ``table.md``.

    Returns:
        The Markdown, one table per metric.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / 'rows.json', json.dumps(rows, indent=1) + '\n')
    with atomic_write(out / 'rows.csv') as fresh:
        pandas.DataFrame(rows).convert_dtypes().to_csv(fresh, index=False)
    text = '\n'.join(
        f'{metric}, last epoch, test set (percent)\n\n'
        f'{markdown(table(rows, metric))}'
        for metric in METRICS if rows and all(metric in r for r in rows))
    write_text(out / 'table.md', text)
    return text
