"""Data sets in the format of tensorflow-datasets (TFDS), as `array_record`, without TensorFlow.

This module reads what stock TFDS has prepared in this format, and stock TFDS reads what `write` prepares: a builder
here is a subclass of TFDS's own, with only the source of its examples replaced. TFDS needs TensorFlow to unpack
archives and to encode images, so both are done without it (by `download` next to this module, and by Pillow, as PNGs).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from train.data.storage.preparation import PREPARATIONS, prepare_command
from train.errors import UserError, first_line, reason
from train.interface import paths

Examples = Callable[[], Iterable[tuple[int | str, Mapping[str, Any]]]]


def resolve_data_dir(data_dir: str | os.PathLike[str]) -> Path:
    """The folder of prepared data sets: `data_dir`, or TFDS's own default if that is empty.

    Raises:
      UserError: there is no home folder, or TFDS would take the path for a pattern.
    """
    name = "data_dir" if os.fspath(data_dir) else "TFDS_DATA_DIR"
    if given := os.fspath(data_dir) or os.environ.get("TFDS_DATA_DIR", ""):
        folder = paths.user_path(given, name)
    elif (home := paths.home()) is not None:
        folder = home / "tensorflow_datasets"
    else:
        raise UserError("there is no home folder to look for data in (no HOME, no passwd entry); give data_dir")
    if found := sorted(set("*?[").intersection(os.fspath(folder))):
        raise UserError(f"{name}={folder} has {found[0]!r} in it, and TFDS takes it for a pattern; use another folder")
    return folder


def is_prepared(name: str, data_dir: str | os.PathLike[str]) -> bool:
    """Whether something is prepared, though it may be damaged; an empty folder does not count.

    Raises:
      UserError: the folder cannot be read.
    """
    folder = resolve_data_dir(data_dir) / name
    if not folder.is_dir():
        return False
    files = {path.name for path in paths.entries(folder)}
    if name in PREPARATIONS and (needed := PREPARATIONS[name].files):
        return files.issuperset(needed)
    return any(folder.glob("**/dataset_info.json"))


def open_prepared(name: str, data_dir: str | os.PathLike[str]) -> Any:
    """TFDS's builder of a data set that is prepared in `data_dir` in a format readable without TensorFlow.

    Raises:
      UserError: it is not prepared, is in another format, or its metadata cannot be read.
    """
    root = resolve_data_dir(data_dir)
    # Checked before TFDS is asked: for a missing data set its builders look on the network.
    if not is_prepared(name, data_dir):
        raise UserError(f"{name} is not prepared in {root}; run: {prepare_command(name, data_dir)}")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import file_adapters

    formats = file_adapters.FileFormat.with_random_access()
    try:
        builder = tfds.builder(name, data_dir=root)
        prepared = builder.is_prepared()
        readable = prepared and bool(builder.info.available_file_formats() & formats)
    except Exception as error:  # TFDS raises whatever JSON, protobuf or the file system raised
        raise UserError(f"the metadata of {name} in {root} cannot be read: {first_line(error)}") from error
    if not prepared:
        raise UserError(
            f"{root / name} contains no complete {name} of version {builder.version}; "
            f"run: {prepare_command(name, data_dir)}"
        )
    if not readable:
        raise UserError(
            f"{builder.data_dir} contains {name} as {builder.info.as_proto.file_format}, which only TensorFlow "
            f"reads; prepare it elsewhere: {prepare_command(name, 'DIR')}"
        )
    files = [Path(file) for split in builder.info.splits.values() for file in split.filepaths]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"{builder.data_dir} lacks {', '.join(missing)}; remove that folder, then run: "
            f"{prepare_command(name, data_dir)}"
        )
    return builder


def read_examples(builder: Any, split: str, undecoded: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The examples of a split in stored order; the features named in `undecoded` stay encoded bytes.

    Raises:
      UserError: the split is missing, or its record files are missing, truncated or damaged (their format
        carries checksums).
    """
    import tensorflow_datasets as tfds

    where = builder.data_dir
    if split not in builder.info.splits:
        raise UserError(f"{where} has no split {split!r}, only {', '.join(builder.info.splits) or 'none'}")
    decoders: Any = {feature: tfds.decode.SkipDecoding() for feature in undecoded}
    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        # Some thousand records per call: one record per call takes ten times as long.
        for start in range(0, len(source), 4096):
            for record in source.__getitems__(list(range(start, min(start + 4096, len(source))))):
                yield builder.info.features.deserialize_example_np(record, decoders=decoders)
    except (RuntimeError, ValueError, IndexError, KeyError, OSError) as error:
        files = ", ".join(sorted(p.name for p in Path(where).glob(f"*-{split}.array_record*"))) or "no files"
        raise UserError(
            f"split {split!r} in {where} ({files}) is damaged: {first_line(error)}; "
            f"remove that folder and prepare the data set again"
        ) from error


def read_published(path: Path, md5: str, allow_mismatch: bool, report: Callable[[str], None]) -> bytes:
    """A file's bytes; a wrong MD5 is an error, or with `allow_mismatch` only reported."""
    try:
        data = paths.read_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5 and not allow_mismatch:
        raise UserError(
            f"{path} differs from the publisher's file: MD5 {found}, expected {md5}; "
            f"get it again, or accept it as it is with --allow-mismatch"
        )
    if found != md5:
        report(f"accepted although it differs: {path}, MD5 {found}, the publisher's is {md5}")
    return data


def builder_from(base: type, source: Mapping[str, Examples], names: Mapping[str, list[str]]) -> type:
    """A builder like TFDS's `base` that gets its examples from `source`.

    Args:
      base: the TFDS builder class; its name, version and features are kept.
      source: for each split a function that yields `(key, example)`, images as encoded bytes. Keys decide
        the stored order (TFDS hashes them), so they should be those that `base` uses.
      names: class names by feature, if `base` reads them from downloaded files.
    """

    def _info(self: Any) -> Any:
        info = base._info(self)  # pyright: ignore[reportAttributeAccessIssue]
        info.initialize_from_bucket = lambda: None  # it would ask Google Cloud Storage
        for feature, values in names.items():
            info.features[feature].names = values
        return info

    def _split_generators(self: Any, dl_manager: Any) -> Any:
        return {split: self._generate_examples(split) for split in source}

    def _generate_examples(self: Any, split: str) -> Any:
        yield from source[split]()

    name: str = base.name  # pyright: ignore[reportAttributeAccessIssue]
    members = {
        "name": name,
        "pkg_dir_path": base._get_pkg_dir_path(),  # pyright: ignore[reportAttributeAccessIssue]
        # TFDS stores it in dataset_info.json, which `decoded_cache.fingerprint` covers: it stays what it first was.
        "__module__": "train.data.prepared",
        "__doc__": base.__doc__,
        "_info": _info,
        "_split_generators": _split_generators,
        "_generate_examples": _generate_examples,
        "_log_download_bytes": lambda self: None,
        "_log_download_done": lambda self: None,
    }
    # Not registered, because it would collide with the stock builder of the same name.
    return type(base)(base.__name__, (base,), members, skip_registration=True)


def write(
    builder_cls: Any, data_dir: str | os.PathLike[str], verify: Callable[[Path], None] = lambda root: None
) -> Path:
    """Prepares a data set in `data_dir` as array_record, completely or not at all.

    It is written and verified in a temporary folder next to its place, then renamed: a crash or Ctrl-C leaves no
    partial data set behind (a SIGKILL leaves a folder `.incomplete-*` that nothing reads).

    Args:
      builder_cls: a builder class from `builder_from`.
      data_dir: see `resolve_data_dir`.
      verify: called with the temporary data directory; raises if what was written does not read back.

    Raises:
      UserError: the folder cannot be written, or another process has prepared the data set in the meantime.
    """
    import tensorflow_datasets as tfds

    root = resolve_data_dir(data_dir)
    name = builder_cls.name
    with temporary_folder(root, name) as temporary, _no_progress_bars():
        config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
        try:
            builder = builder_cls(data_dir=temporary, file_format="array_record")
            builder.download_and_prepare(
                file_format="array_record", download_dir=temporary / "downloads", download_config=config
            )
        except OSError as error:
            raise UserError(f"cannot write {name} to {root}: {reason(error)}") from error
        verify(temporary)
        relative = Path(builder.data_dir).relative_to(temporary)
        move_into_place(temporary / relative, root / relative)
        if builder.builder_config is not None:
            # TFDS's own files, which say which config `tfds.builder(name)` uses by default.
            for extra in (temporary / relative.parts[0]).glob("*.json"):
                shutil.copy2(extra, root / relative.parts[0] / extra.name)
    return root / relative


@contextlib.contextmanager
def temporary_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder on the same file system as `root`, always removed at the end."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".incomplete-{name}-", dir=root))
    except OSError as error:
        raise UserError(f"cannot write to {root}: {reason(error)}") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_into_place(temporary: Path, final: Path) -> None:
    """Moves a finished folder into its place, which must not exist yet."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(_mode_of_new_folders(temporary.parent))
        temporary.rename(final)
    except OSError as error:
        why = "it already exists" if final.exists() else reason(error)
        raise UserError(f"cannot put the prepared data set in {final}: {why}") from error


def _mode_of_new_folders(parent: Path) -> int:
    """A new folder's mode under the umask and the parent's access lists; TFDS's folders are for the owner only."""
    probe = Path(tempfile.mkdtemp(prefix=".mode-", dir=parent)) / "folder"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    shutil.rmtree(probe.parent)
    return mode


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Turns off TFDS's bars, which write hundreds of lines to a log; the command line reports progress itself."""
    from tensorflow_datasets.core.utils import tqdm_utils

    active = tqdm_utils._active
    tqdm_utils.disable_progress_bar()
    try:
        yield
    finally:
        tqdm_utils._active = active
