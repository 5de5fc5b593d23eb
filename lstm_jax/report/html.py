"""One page that needs nothing else: tables, figures and settings in a single HTML file."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from lstm_jax.report.tables import Row, cell

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
p { white-space: pre-line; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; }
th, td { text-align: left; vertical-align: top; }
.number { white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 13px; }
"""


def page(title: str, *parts: str) -> str:
    """A whole page: the title and then its parts, made by the functions below."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """The name of what follows."""
    return f"<h2>{escape(text)}</h2>"


def prose(text: str) -> str:
    """Plain paragraphs, an empty line between them."""
    return "\n".join(f"<p>{words(part)}</p>" for part in text.strip().split("\n\n"))


def words(text: str) -> str:
    """Text, in which `code` stands between backticks."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def table(rows: Sequence[Row]) -> str:
    """Rows under their names, as `tables.text` shows them."""
    head = "".join(f"<th>{_name(name)}</th>" for name in (rows[0] if rows else ()))
    body = "\n".join(_line(row) for row in rows)
    whole = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide">{whole}</div>'


def picture(png: bytes, caption: str) -> str:
    """An image held in the page itself, with what to see in it."""
    data, alt = base64.b64encode(png).decode(), escape(caption.replace("`", ""))
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{words(caption)}</figcaption></figure>"
    )


def listing(title: str, value: Any) -> str:
    """A value that JSON can hold, folded under its title."""
    text = escape(json.dumps(value, indent=2))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"


def _name(name: str) -> str:
    """A column's name, which may go on in a new line behind an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _line(row: Row) -> str:
    """A row, whose texts may go on in a new line and whose numbers may not."""
    return f"<tr>{''.join(map(_cell, row.values()))}</tr>"


def _cell(value: Any) -> str:
    kind = "" if isinstance(value, str) else ' class="number"'
    return f"<td{kind}>{words(cell(value))}</td>"
