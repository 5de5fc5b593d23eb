"""Tables: rows of named values, as aligned text for people and as CSV for programs.

A value is a number, a string, None, or one of the named tuples of `statistics`, which is one cell
of text and several columns of CSV.
"""

import csv as csv_format
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

FORMULA = ("=", "+", "-", "@", "\t")  # how a spreadsheet's formula begins


def cell(value: Any) -> str:
    """A value as a person reads it: numbers to three digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def text(rows: Sequence[Row]) -> str:
    """Rows as aligned columns under their names; numbers to the right, words to the left."""
    if not rows:
        return "(no rows)"
    lines = [list(rows[0])] + [[cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [not isinstance(value, str) for value in rows[0].values()]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(_justified(line, widths, right)).rstrip() for line in lines)


def trials(records: Iterable[Row]) -> list[Row]:
    """One row a trial from the results of a ledger, in its order: group, trial, settings, outcome.

    Every row has the columns of all of them, None where its trial has none.
    """
    results = [record for record in records if record["kind"] == "result"]
    names = list(dict.fromkeys(name for record in results for name in record if name != "kind"))
    return [{name: record.get(name) for name in names} for record in results]


def csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with full precision; a named tuple `x` of fields a, b becomes x_a, x_b.

    Where other rows have one, None leaves all of these empty. A text that a spreadsheet would run
    as a formula has an apostrophe before it.
    """
    out = io.StringIO()
    names = list(rows[0]) if rows else []
    kinds = {n: next((r[n] for r in rows if hasattr(r[n], "_fields")), None) for n in names}
    flat = [dict(_columns(row, kinds)) for row in rows]
    writer = csv_format.DictWriter(out, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in flat)
    return out.getvalue()


def _justified(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    for value, width, flush in zip(line, widths, right, strict=True):
        yield value.rjust(width) if flush else value.ljust(width)


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value


def _columns(row: Row, kinds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if kinds[name] is None:
            yield name, value
        else:
            parts = (None,) * len(kinds[name]) if value is None else value
            pairs = zip(kinds[name]._fields, parts, strict=True)
            yield from ((f"{name}_{field}", part) for field, part in pairs)
