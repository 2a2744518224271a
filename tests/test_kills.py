"""Five runs of faults.py; docs/reliability.md has all kinds, many times."""
import faults
import pytest


@pytest.mark.parametrize('kinds', [
    ('SIGKILL', 'full disk'), ('SIGTERM, loader workers', 'a loader worker'),
    ('one rank of two', )])
def test_killed_trainings_resume_to_the_same_bits(tmp_path, kinds):
    runs = list(faults.run(len(kinds), 1, tmp_path, kinds))
    assert [kind for kind, *_ in runs] == list(kinds)
    assert all(differs is None for *_, differs in runs), runs
