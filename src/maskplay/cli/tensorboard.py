"""Figures for TensorBoard, written without it and without TensorFlow: an event file is a list of small messages.

Each record is a message `Event` (a time, a step, named numbers) with its length and two checksums. A run that goes on
appends to the file that it began; a record that was being written when it was killed is cut off.

Source: tensorflow/core/util/event.proto and tensorflow/core/lib/io/record_writer.h for the format.
"""

import os
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.errors import UserError
from maskplay.protobuf import read_message, write_field

NAME = "events.out.tfevents.{:010d}.maskplay"  # TensorBoard reads every file with "tfevents" in its name
FILES = NAME.replace("{:010d}", "*")
VERSION = b"brain.Event:2"  # what the first record says


class EventFile:
    """A file of figures by step in a folder that `tensorboard --logdir FOLDER` shows.

    Args:
        folder: where; made when missing.
        more: whether to go on with the newest file that is there, instead of beginning one.

    Attributes:
        step: the last one that is in the file, 0 at first; what is written for it or for earlier ones is passed over.

    Raises:
        UserError: the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> events = EventFile(Path(tempfile.mkdtemp()), more=False)
        >>> events.write(100, {"loss": 2.5, "val_loss": 2.75})
        >>> events.step
        100
    """

    def __init__(self, folder: Path, more: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = sorted(folder.glob(FILES)) if more else []
            self.path = found[-1] if found else folder / NAME.format(int(time.time()))
            content = self.path.read_bytes() if found else b""
            records = [*_records(content)]
            fields = (field for record in records for field in read_message(record))
            self.step = max((int(field.value) for field in fields if field.number == 2), default=0)
            self._header = b"" if records else _record(_event(0) + write_field(3, VERSION))
            if found:
                os.truncate(self.path, sum(len(record) + 16 for record in records))
            open(self.path, "ab").close()  # where that cannot be, it is known before hours of work
            if not self.path.stat().st_size:
                self.path.unlink()
        except (OSError, ValueError) as error:  # of a name with a zero in it
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{folder}: no event file can be written there ({reason})") from None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step: `loss` as `loss/train` and `val_loss` as `loss/held_out`, side by side."""
        if step <= self.step:
            return
        values = b""
        for name, figure in figures.items():
            if f"val_{name}" in figures:
                name = f"{name}/train"
            elif name.startswith("val_"):
                name = f"{name.removeprefix('val_')}/held_out"
            values += write_field(1, write_field(1, name.encode()) + write_field(2, float(figure)))
        with open(self.path, "ab") as file:
            file.write(self._header + _record(_event(step) + write_field(5, values)))
        self.step, self._header = step, b""


def _record(event: bytes) -> bytes:
    size = struct.pack("<Q", len(event))
    check = [struct.pack("<I", masked_crc32c(part)) for part in (size, event)]
    return size + check[0] + event + check[1]


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records that a file begins with."""
    at = 0
    while len(content) - at >= 12:
        (size,) = struct.unpack_from("<Q", content, at)
        record = content[at + 12 : at + 12 + size]
        if content[at + 12 + size : at + 16 + size] != struct.pack("<I", masked_crc32c(record)):
            return
        yield record
        at += 16 + size


def _event(step: int) -> bytes:
    """The beginning of an event: the time now, and the step."""
    return b"\x09" + struct.pack("<d", time.time()) + write_field(2, step)
