"""A study whose processes are killed, whose disk fills and whose clock is set back ends as one that was left alone."""

import os
import random
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif("CHAOS" not in os.environ, reason="two minutes: CHAOS=1 runs one round, make chaos 20")
def test_a_disturbed_study_ends_as_an_undisturbed_one():
    # In a process of its own, which may mount a small disk.
    seed = random.SystemRandom().randrange(2**31)
    command = [sys.executable, "-m", "tests.train.study.chaos", "--rounds=1", f"--seed={seed}"]
    print(f"repeat with {' '.join(command[1:])}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every study ended as the undisturbed one" in done.stdout
