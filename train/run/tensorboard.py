"""The columns of metrics.csv as TensorBoard's scalars, each epoch once however often the run was interrupted."""

import socket
import struct
import time
from pathlib import Path
from typing import Any

from train.run.records import Row


class TensorBoard:
    """An event file with a scalar for each column and epoch.

    The records come from tensorboardX (no TensorFlow), but are written here, because tensorboardX writes in a thread
    that dies at the first error. An epoch that could not be written is written with the next one, and a partly written
    record, past which TensorBoard would not read, is removed. The file is opened, and tensorboardX imported (a
    second), when there is a row for it: not before the first step.

    Args:
      directory: Where it goes; made if missing.
      after_epoch: Readers drop what older event files there have of later epochs.
    """

    def __init__(self, directory: Path, *, after_epoch: int):
        self._directory = directory
        self._after_epoch: int | None = after_epoch  # until it is told
        self._file: Any = None
        self._unwritten: list[bytes] = []

    def go_back(self, after_epoch: int) -> None:
        """Readers drop what is there of later epochs, which will be written again."""
        self._after_epoch = after_epoch

    def append(self, row: Row) -> None:
        """Adds the scalars of an epoch, and those that earlier calls could not write.

        Raises:
          OSError: They cannot be written now.
        """
        from tensorboardX.proto import event_pb2, summary_pb2

        events: Any = event_pb2  # their names are made when they are imported
        summaries: Any = summary_pb2
        if self._file is None and not self._unwritten:
            self._unwritten.append(_record(events.Event(wall_time=time.time(), file_version="brain.Event:2")))
        if self._after_epoch is not None:
            start = events.SessionLog(status=events.SessionLog.START)
            self._unwritten.append(
                _record(events.Event(wall_time=time.time(), step=self._after_epoch + 1, session_log=start))
            )
            self._after_epoch = None
        values = [
            summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if isinstance(value, int | float) and name not in ("epoch", "step")
        ]
        summary = summaries.Summary(value=values)
        self._unwritten.append(_record(events.Event(wall_time=time.time(), step=row["epoch"], summary=summary)))
        self._write()

    def _write(self) -> None:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = _new_file(self._directory).open("xb", buffering=0)
        whole = self._file.tell()
        data = memoryview(b"".join(self._unwritten))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(whole)
            self._file.seek(whole)
            raise
        self._unwritten = []

    def close(self) -> None:
        """Closes the event file."""
        if self._file is not None:
            self._file.close()


def _new_file(directory: Path) -> Path:
    """A name behind those of all event files in the directory, also where the clock was set back: readers go by it."""
    prefix = "events.out.tfevents."
    stamps = [path.name.removeprefix(prefix).split(".")[0] for path in directory.glob(f"{prefix}*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    return directory / f"{prefix}{max(int(time.time()), newest + 1):010d}.{socket.gethostname()}"


def _record(event: Any) -> bytes:
    """A TFRecord: length, data, and a masked CRC-32C of each."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
