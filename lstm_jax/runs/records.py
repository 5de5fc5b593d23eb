"""Records on disk, one JSON object a line, and atomic replacement of files."""

import itertools
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]

COPY = "restore it from a copy, or begin a new run"
TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.tmp$")


class Damaged(ValueError):
    """A file has changed since it was written.

    Attributes:
      path: the file.
      fault: the change.
      remedy: a way to continue.
    """

    def __init__(self, path: str | os.PathLike, fault: str, remedy: str = COPY):
        super().__init__(path, fault, remedy)  # pickle needs the arguments
        self.path, self.fault, self.remedy = Path(path), fault, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}; {self.remedy}"


class RecordLog:
    """A file of records, one JSON object a line.

    A line counts once its newline is written. A partial last line, left by a killed process, is
    never read, and the next write removes it. Numbers have the shortest form that reads back as the
    same value; numbers that are not finite are null. Records hold no times, so a resumed run has
    the same bytes as an uninterrupted one.

    Attributes:
      path: the file; it may not exist yet.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes records at the end and waits until they are on disk.

        Raises:
          OSError: they cannot be written; the file is unchanged.
        """
        lines = encode(records)
        self._cut_torn_end()
        size = self.size()
        try:
            with open(self.path, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)
            raise

    def read(self) -> list[Record]:
        """Returns all whole records in order; none without a file.

        Raises:
          Damaged: a line before the last is not a JSON object.
        """
        return [record for _, record in self.pairs()]

    def pairs(self) -> Iterator[tuple[bytes, Record]]:
        """Yields each whole line with its record; raises as `read`."""
        for number, line in enumerate(self._lines(), start=1):
            yield line, self._parse(number, line)

    def keep(self, wanted: Callable[[Record], bool]) -> None:
        """Removes the records that are not wanted, and replaces the file atomically."""
        kept = b"".join(line for line, record in self.pairs() if wanted(record))
        if self.path.exists() and kept != self.path.read_bytes():
            replace_file(self.path, kept)

    def rewind(self, group: str, count: int) -> None:
        """Removes all but the first `count` records of a group."""
        seen = itertools.count()
        self.keep(lambda record: record.get("group") != group or next(seen) < count)

    def size(self) -> int:
        """Returns the bytes of the file, 0 without a file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def _lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.exists() else b""
        return [line + b"\n" for line in content.split(b"\n")[:-1]]

    def _cut_torn_end(self) -> None:
        if self.size() == 0:
            return
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        if torn:
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Damaged(self.path, f"line {number} is no JSON object: {error}") from None
        if not isinstance(record, dict):
            raise Damaged(self.path, f"line {number} is no JSON object")
        return record


def encode(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns records as lines of JSON."""
    lines = (json.dumps(plain(record), allow_nan=False) + "\n" for record in records)
    return "".join(lines).encode()


def plain(value: Any) -> Any:
    """Returns a value for JSON, with NumPy numbers and arrays as Python's.

    float32 0.1 becomes 0.1, not 0.10000000149011612; numbers that are not finite become None.
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
    """Writes a file atomically: after a crash either the old or the new file exists."""
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def temporaries(directory: Path) -> list[Path]:
    """Returns the temporary files in a directory that a killed `replace_file` left."""
    return [path for path in directory.glob("*.tmp") if TEMPORARY.search(path.name)]
