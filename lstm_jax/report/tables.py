"""Tables: rows of named values, as aligned text for people and as CSV for programs.

A value is a number, a string, None, or a named tuple of `statistics`. A named tuple is one cell of
text and several columns of CSV.
"""

import csv as csv_format
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

WIDTH, GAP = 120, "  "  # of a terminal; between columns
FORMULA = ("=", "+", "-", "@", "\t")  # first characters of a spreadsheet's formula


def cell(value: Any) -> str:
    """Returns a value as text: numbers to three digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def text(rows: Sequence[Row], width: int = WIDTH) -> str:
    """Returns rows as columns under their names, numbers flush right and words flush left.

    If the rows are wider than `width`, the widest columns become narrower, to the width of their
    longest word at least. Cells then break after blanks and underscores.
    """
    if not rows:
        return "(no rows)"
    lines = [list(rows[0])] + [[cell(value) for value in row.values()] for row in rows]
    widths = _fitted(list(zip(*lines, strict=True)), width)
    right = [not isinstance(value, str) for value in rows[0].values()]
    folded = [line for row in lines for line in _folded_row(row, widths)]
    under = max(len(_folded(name, w)) for name, w in zip(rows[0], widths, strict=True))
    folded.insert(under, ["-" * w for w in widths])
    return "\n".join(GAP.join(_justified(line, widths, right)).rstrip() for line in folded)


def markdown(rows: Sequence[Row]) -> str:
    """Returns rows as a Markdown table under their names."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(cell, row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(map(_one_line, line))} |" for line in lines)


def trials(records: Iterable[Row]) -> list[Row]:
    """Returns one row for each result of a ledger, in order.

    Every row has the columns of all rows, None where its trial has no value.
    """
    results = [record for record in records if record["kind"] == "result"]
    names = list(dict.fromkeys(name for record in results for name in record if name != "kind"))
    return [{name: record.get(name) for name in names} for record in results]


def csv(rows: Sequence[Row]) -> str:
    """Returns rows as CSV with full precision.

    A named tuple x with the fields a and b becomes the columns x_a and x_b; both are empty in a row
    with None. A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    out = io.StringIO()
    names = list(rows[0]) if rows else []
    kinds = {n: next((r[n] for r in rows if hasattr(r[n], "_fields")), None) for n in names}
    flat = [dict(_columns(row, kinds)) for row in rows]
    writer = csv_format.DictWriter(out, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in flat)
    return out.getvalue()


def _fitted(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Returns the width of each column: the widest shrink until all fit."""
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(p.strip()) for value in column for p in _pieces(value)) for column in columns]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        loose = [n for n, (now, low) in enumerate(zip(widths, least, strict=True)) if now > low]
        if not loose:
            break
        widths[max(loose, key=widths.__getitem__)] -= 1
    return widths


def _folded_row(row: Sequence[str], widths: Sequence[int]) -> list[Sequence[str]]:
    """Returns the lines of a row."""
    cells = [_folded(value, width) for value, width in zip(row, widths, strict=True)]
    return list(itertools.zip_longest(*cells, fillvalue=""))


def _folded(value: str, width: int) -> list[str]:
    """Returns the lines of a cell."""
    lines = [""]
    for piece in _pieces(value):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(value: str) -> list[str]:
    """Returns the parts between which a line may break: words, and parts of names."""
    return re.findall(r"[^ _]*[ _]+|[^ _]+$", value) or [""]


def _justified(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    for value, width, flush in zip(line, widths, right, strict=True):
        yield value.rjust(width) if flush else value.ljust(width)


def _one_line(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")


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
