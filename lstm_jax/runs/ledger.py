"""The ledger of a run: the records of its groups, each group closed by a checksum."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lstm_jax.runs.records import Damaged, Record, RecordLog, encode

FINISHED = "finished"


class Ledger(RecordLog):
    """The records of a run. Each has a kind and a group of trials.

    The last record of a finished group is its mark:

        {"kind": "finished", "group", "trials", "before", "files", "sha256"}

    `before` counts the earlier marks, `files` has the SHA-256 of each file of the group, and
    `sha256` covers the group's lines and the other fields of the mark. `check` therefore finds any
    lost or changed line of a finished group.
    """

    _left: int | None = None  # bytes of the file after this process last wrote it

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes records at the end, as `RecordLog.append`.

        Raises:
          Damaged: the file was changed since this process last wrote it.
        """
        size = self.size()
        if self._left not in (None, size):
            raise Damaged(self.path, f"it has {size} bytes, this process left {self._left}")
        super().append(records)
        self._left = self.size()

    def rewind(self, group: str, count: int) -> None:
        """Removes all but the first `count` records of a group."""
        super().rewind(group, count)
        self._left = None

    def finished(self) -> list[str]:
        """Returns the finished groups in order."""
        marks = (record for _, record in self._with("kind", FINISHED))
        return [mark["group"] for mark in marks]

    def finish(self, group: str, results: list[Record], files: Mapping[str, str]) -> None:
        """Appends the results and the mark of a group."""
        mark = {"kind": FINISHED, "group": group, "trials": len(results)}
        mark |= {"before": len(self.finished()), "files": files}
        lines = [*self._own(group), encode(results)]
        self.append([*results, mark | {"sha256": _seal(lines, mark)}])

    def note(self, group: str) -> Record:
        """Returns the state of a group's records in the ledger, for `holds`."""
        own = self._own(group)
        return {"written": len(own), "sha256": _sha256(own), "before": len(self.finished())}

    def holds(self, group: str, note: Record) -> bool:
        """Returns whether the ledger still has all records of the time of `note`."""
        own = self._own(group)[: note["written"]]
        same = len(own) == note["written"] and _sha256(own) == note["sha256"]
        return same and len(self.finished()) >= note["before"]

    def check(self, directory: Path) -> None:
        """Checks every record, and every file of a finished group in the run's directory.

        Raises:
          Damaged: a record or a file has changed since it was written.
        """
        marks: list[Record] = []
        lines: dict[str, list[bytes]] = defaultdict(list)
        for number, (line, record) in enumerate(self.pairs(), start=1):
            if not all(isinstance(record.get(key), str) for key in ("kind", "group")):
                raise Damaged(self.path, f"line {number} lacks a kind or a group")
            if record["kind"] == FINISHED:
                marks.append(record)
            else:
                lines[record["group"]].append(line)
        for before, mark in enumerate(marks):
            self._check_mark(mark, before, lines[mark["group"]])
            for name, wanted in mark.get("files", {}).items():
                _check_file(directory / name, wanted)

    def _check_mark(self, mark: Record, before: int, lines: list[bytes]) -> None:
        if mark.get("before", before) != before:
            raise Damaged(self.path, f"a group that was finished before {mark['group']!r} is lost")
        if "sha256" in mark and mark["sha256"] != _seal(lines, mark):  # earlier versions had none
            raise Damaged(self.path, f"the records of group {mark['group']!r} were changed")

    def _own(self, group: str) -> list[bytes]:
        """Returns the lines of a group, without its mark."""
        return [line for line, r in self._with("group", group) if r.get("kind") != FINISHED]

    def _with(self, key: str, value: str) -> Iterator[tuple[bytes, Record]]:
        """Yields the lines in which a field has a value, without parsing all others."""
        text = encode([{key: value}])[1:-2]
        for number, line in enumerate(self._lines(), start=1):
            if text in line and (record := self._parse(number, line)).get(key) == value:
                yield line, record


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise Damaged(path, "it is missing")
    if sha256_of(path) != wanted:
        raise Damaged(path, "it is not as its group left it")


def _seal(lines: list[bytes], mark: Record) -> str:
    return _sha256([*lines, encode([{k: v for k, v in mark.items() if k != "sha256"}])])


def _sha256(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
