"""The ledger of a run: one JSON object a line, appended, and rewound on resume."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


class RecordLog:
    """A file of records, one JSON object a line.

    A line counts once its newline is written: a torn last line, the trace of a killed process, is
    never read and is cut off before the next is written. Numbers are written in the shortest form
    that gives the same value back, numbers that are not finite as null. What depends on the clock
    has no place here: a run that was killed and resumed leaves the same bytes as one that was not.

    Attributes:
      path: the file; it may not exist yet.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes records at the end, in one piece, and waits until they are on the disk."""
        if self._torn():
            self.keep(lambda record: True)
        text = "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in records)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Record]:
        """Returns all whole records in order; none when there is no file.

        Raises:
          ValueError: a line before the last cannot be read.
        """
        return [self._parse(number, line) for number, line in enumerate(self._lines(), start=1)]

    def keep(self, wanted: Callable[[Record], bool]) -> None:
        """Drops the records that are not wanted; the new file takes the old one's place at once."""
        pairs = zip(self._lines(), self.read(), strict=True)
        kept = b"".join(line for line, record in pairs if wanted(record))
        if self.path.exists() and kept != self.path.read_bytes():
            replace_file(self.path, kept)

    def rewind(self, group: str, count: int) -> None:
        """Drops all but the first `count` records of a group."""
        seen = itertools.count()
        self.keep(lambda record: record.get("group") != group or next(seen) < count)

    def _lines(self) -> list[bytes]:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        return [line for line in lines if line.endswith(b"\n")]

    def _torn(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is no JSON object: {error}") from None


def plain(value: Any) -> Any:
    """Returns what JSON can say of a value: NumPy's numbers and arrays as Python's.

    float32 0.1 becomes 0.1, not 0.10000000149011612; what is not finite becomes None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.ndim else plain(value[()])
    if isinstance(value, np.floating):
        value = float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file so that, whenever the process dies, either the old or the new one is there."""
    temporary = Path(f"{os.fspath(path)}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
