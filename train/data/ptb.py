"""Mikolov's preprocessed Penn Treebank: 10,000 words; 929,589 training and 73,760 validation tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from train.data.dataset import Dataset
from train.data.storage import prepared
from train.data.storage.preparation import prepare_command
from train.data.text import load_text
from train.errors import UserError

# MD5s of the usual copies of Mikolov's preprocessing (simple-examples/data).
_MD5 = {
    "ptb.train.txt": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "ptb.valid.txt": "aa0affc06ff7c36e977d7cd49e3839bf",
    "ptb.test.txt": "8b80168b89c18661a38ef683c0dc3721",
}
_FOLDERS = ("", "ptb", "data", "simple-examples/data")


def load_ptb(data_dir: str, *, batch_size: int, test_batch_size: int, sequence_length: int) -> Dataset:
    """The data set that `prepare ptb` put in `data_dir`; see `train.data.text.load_text`."""
    folder = prepared.resolve_data_dir(data_dir) / "ptb"
    if not prepared.is_prepared("ptb", data_dir):
        raise UserError(
            f"ptb is not prepared in {folder.parent}; run: {prepare_command('ptb', data_dir)} "
            f"(the folder with ptb.train.txt)"
        )
    return load_text(
        folder,
        batch_size=batch_size,
        test_batch_size=test_batch_size,
        sequence_length=sequence_length,
        name="ptb",
    )


def prepare_ptb(
    data_dir: str, *, from_dir: str, allow_mismatch: bool = False, report: Callable[[str], None] = print
) -> Path:
    """Copies the three files into `data_dir/ptb`, all or none, and returns that folder.

    Raises:
      UserError: no `from_dir` (the licence allows no download), a missing file or one with a wrong MD5.
    """
    if not from_dir:
        raise UserError(
            "Penn Treebank's licence allows no public download; give the folder that contains ptb.train.txt, "
            f"ptb.valid.txt and ptb.test.txt: {prepare_command('ptb', data_dir)}"
        )
    given = Path(from_dir)
    folder = next((given / sub for sub in _FOLDERS if (given / sub / "ptb.train.txt").is_file()), None)
    if folder is None:
        raise UserError(f"{given} contains no ptb.train.txt (looked there and in its {', '.join(_FOLDERS[1:])})")
    root = prepared.resolve_data_dir(data_dir)
    with prepared.temporary_folder(root, "ptb") as temporary:
        (temporary / "ptb").mkdir()
        for file, md5 in _MD5.items():
            data = prepared.read_published(folder / file, md5, allow_mismatch, report)
            (temporary / "ptb" / file).write_bytes(data)
        prepared.move_into_place(temporary / "ptb", root / "ptb")
    return root / "ptb"
