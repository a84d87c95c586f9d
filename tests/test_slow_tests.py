"""The list of slow tests is of tests that are there."""

import pytest
import slow_tests


def test_every_line_names_a_test():
    """Renamed tests were on the list under their old names, and ran in `make quick`."""
    names = slow_tests.LIST.read_text().splitlines()
    assert len(names) > 100 and names == sorted(set(names))
    assert [name for name in names if not slow_tests.is_there(name)] == []


@pytest.mark.parametrize("name", ["tests/test_none.py::test_a", "tests/test_slow_tests.py::test_a"])
def test_a_test_that_is_gone_is_noticed(name):
    assert not slow_tests.is_there(name)
