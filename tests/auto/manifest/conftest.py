"""Manifests that may use few names, apart from the real task's."""

import pytest
from manifest_cases import VOCABULARY, only


@pytest.fixture(scope="module")
def small_vocabulary():
    with only(VOCABULARY):
        yield
