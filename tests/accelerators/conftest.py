"""The chips that tests compile for; skipped, with the reason, where a chip's compiler is not installed."""

import pytest

from benchmarks.aot import chips


def _chip(chip):
    if why := chips.missing(chip):
        pytest.skip(why)
    return chip


@pytest.fixture(scope="session", params=chips.CHIPS, ids=lambda chip: chip.name)
def chip(request):
    """Each chip in turn."""
    return _chip(request.param)


@pytest.fixture(scope="session")
def v5e():
    return _chip(chips.V5E)


@pytest.fixture(scope="session", params=[chips.V5E_8, chips.V5E_256], ids=["8 chips", "256 chips"])
def v5e_pod(request):
    """Arrangements of many chips."""
    return _chip(request.param)
