"""A short run of the fuzzer; docs/reliability.md has the long one."""
import fuzz
import pytest


@pytest.mark.parametrize('name', fuzz.READERS)
def test_damaged_files_end_in_a_sentence(name):
    read, own, other = fuzz.fuzz(name, 100, seed=1)
    assert not other
    assert own > 0 and read + own == 100
