"""Runs killed at random instants end as one that was left alone: ten kills of short runs here, a hundred of longer ones
by `make chaos`.
"""

import random

import pytest

from tests.train.chaos import torture


@pytest.mark.slow
def test_killed_runs_end_bit_identical(tmp_path):
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}: repeat with python -m tests.train.chaos --kills=10 --epochs=10 --seed={seed}")
    figures = torture(10, seed, tmp_path, epochs=10)
    assert figures["kills"] == 10
