"""Eight runs of faults.py; docs/reliability.md has the long one."""
import faults
import pytest


@pytest.mark.parametrize('place', sorted(set(faults.KINDS.values())))
def test_killed_trainings_resume_to_the_same_bits(tmp_path, place):
    kinds = [kind for kind, where in faults.KINDS.items()
             if where == place and kind != 'SIGINT']  # handled as SIGTERM
    runs = list(faults.run(len(kinds), 1, tmp_path, kinds))
    assert [kind for kind, *_ in runs] == kinds
    assert all(differs is None for *_, differs in runs), runs
