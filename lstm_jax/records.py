"""The ledger of a run: one JSON object a line, appended, readable at any moment, rewound on resume."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


class RecordLog:
    """A file of records, one JSON object a line.

    A line counts once its newline is written: a torn last line, the trace of a killed process, is
    never read and is cut off by the next `rewind`. Numbers are written in the shortest form that
    gives the same value back, numbers that are not finite as null. What depends on the clock has no
    place here, so that a run that was killed and resumed leaves the same bytes as one that was not.

    Attributes:
      path: the file; it may not exist yet.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes records at the end, in one piece, and waits until they are on the disk."""
        text = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
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

    def rewind(self, group: str, keep: int) -> None:
        """Drops all but the first `keep` records of a group, and any torn last line.

        The new file takes the old one's place in one stroke.
        """
        kept, seen = [], 0
        for line, record in zip(self._lines(), self.read(), strict=True):
            mine = record.get("group") == group
            seen += mine
            if not mine or seen <= keep:
                kept.append(line)
        replace_file(self.path, b"".join(kept))

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is no JSON object: {error}") from None


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file so that, whenever the process dies, either the old or the new one is there."""
    temporary = Path(f"{os.fspath(path)}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """Returns what JSON can say of a value; float32 0.1 becomes 0.1, not 0.10000000149011612."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim else _plain(value[()])
    if isinstance(value, np.floating):
        value = float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
