"""metrics.csv as a file: its columns, and those that others wrote or that came later."""

import pytest

from train.errors import UserError
from train.run.records import COLUMNS, NORM_COLUMNS, MetricsFile, read_rows

ROW = dict.fromkeys(COLUMNS, 0.5) | {"epoch": 1, "step": 7}


def without(path, columns, **more):
    """A metrics.csv of one row without some columns, and with others."""
    names = [name for name in (*COLUMNS, *more) if name not in columns]
    cells = {name: str(value) for name, value in (ROW | more).items()}
    path.write_text(",".join(names) + "\n" + ",".join(cells[name] for name in names) + "\n")
    return path


def test_a_run_from_before_a_metric_goes_on_with_its_column_empty_so_far(tmp_path):
    path = without(tmp_path / "metrics.csv", NORM_COLUMNS)
    file = MetricsFile(path)
    file.append(ROW | {"epoch": 2, "step": 14})
    first, second = read_rows(path)
    assert [first[name] for name in NORM_COLUMNS] == [None] * 4
    assert (first["epoch"], first["test_loss"]) == (1, 0.5)
    assert second == ROW | {"epoch": 2, "step": 14}


def test_a_users_column_is_kept_as_it_is(tmp_path):
    path = without(tmp_path / "metrics.csv", (), note="warm; noisy")
    MetricsFile(path).append(ROW | {"epoch": 2, "step": 14})
    assert [row["note"] for row in read_rows(path)] == ["warm; noisy", ""]


@pytest.mark.parametrize("missing", ["epoch", "test_accuracy", "seconds"])
def test_a_file_without_a_column_that_every_run_has_is_refused(tmp_path, missing):
    path = without(tmp_path / "metrics.csv", (missing,))
    before = path.read_text()
    with pytest.raises(UserError, match=r"metrics\.csv does not have the columns"):
        MetricsFile(path)
    assert path.read_text() == before
