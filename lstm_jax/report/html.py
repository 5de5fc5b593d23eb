"""A report as one self-contained HTML page: verdicts, figures, tables and settings."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from lstm_jax.report.claims import FAILS, PARTLY, REPRODUCES, Claim, headline
from lstm_jax.report.figures import DPI
from lstm_jax.report.tables import Row, cell

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; }
body { max-width: 74rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; }
.lead { font-size: 1.15rem; max-width: 46rem; }
p { white-space: pre-line; }
.verdicts { list-style: none; padding: 0; }
.verdicts li { padding: .5rem 0 .5rem .8rem; margin: .6rem 0; border-left: .35rem solid #888; }
.verdicts li.yes { border-color: #009E73; }
.verdicts li.partly { border-color: #E69F00; }
.verdicts li.no { border-color: #D55E00; }
.verdicts b { white-space: nowrap; }
.verdicts small { display: block; color: #444; font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; }
th, td { text-align: left; vertical-align: top; }
.number { white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
figure { margin: 2rem 0; overflow-x: auto; }
img { width: calc(var(--inches) * 70px); max-width: 100%; height: auto; }
figcaption { color: #444; max-width: 60rem; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 13px; }
@media (max-width: 50rem) {
  img { width: calc(var(--inches) * 50px); max-width: none; }
  figcaption { position: sticky; left: 0; max-width: calc(100vw - 2.5rem); }
}
"""
MARKS = {REPRODUCES: "yes", PARTLY: "partly", FAILS: "no"}


def page(title: str, *parts: str) -> str:
    """Returns a page: its title, then its parts, which the functions below make."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Returns the heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def lead(text: str) -> str:
    """Returns the first sentence below a heading."""
    return f'<p class="lead">{words(text)}</p>'


def prose(text: str) -> str:
    """Returns paragraphs; in the text, empty lines part them."""
    return "\n".join(f"<p>{words(part)}</p>" for part in text.strip().split("\n\n"))


def words(text: str) -> str:
    """Returns text as HTML, with words between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def verdicts(claims: Sequence[Claim]) -> str:
    """Returns how many claims reproduce, then each verdict with its claim and results."""
    lines = "\n".join(map(_verdict, claims))
    return f'{heading(headline(claims))}\n<ul class="verdicts">\n{lines}\n</ul>'


def table(rows: Sequence[Row]) -> str:
    """Returns rows as a table with a head, the cells as in `tables.text`."""
    head = "".join(f"<th>{_name(name)}</th>" for name in (rows[0] if rows else ()))
    body = "\n".join(_line(row) for row in rows)
    whole = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide">{whole}</div>'


def folded(title: str, part: str) -> str:
    """Returns a part of the page, folded under its title."""
    return f"<details><summary>{escape(title)}</summary>{part}</details>"


def picture(png: bytes, caption: str) -> str:
    """Returns an image, embedded in the page, with its caption.

    All images have one scale, so that the text of all figures has one size.
    """
    data, alt = base64.b64encode(png).decode(), escape(caption.replace("`", ""))
    inches = int.from_bytes(png[16:20], "big") / DPI
    return (
        f'<figure><img alt="{alt}" style="--inches:{inches:.2f}" '
        f'src="data:image/png;base64,{data}"><figcaption>{words(caption)}</figcaption></figure>'
    )


def listing(title: str, value: Any) -> str:
    """Returns a value as JSON, folded under its title."""
    return folded(title, f"<pre>{escape(json.dumps(value, indent=2))}</pre>")


def _verdict(claim: Claim) -> str:
    mark = MARKS.get(claim.verdict, "open")
    published = "" if claim.published == "-" else f". Published: {claim.published}"
    return (
        f'<li class="{mark}"><b>{escape(claim.verdict.capitalize())}.</b> {words(claim.claim)}.'
        f"<small>Here: {words(claim.ours + published)}</small></li>"
    )


def _name(name: str) -> str:
    """Returns a column's name, in which a line may break after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _line(row: Row) -> str:
    """Returns a row; lines may break in its texts, not in its numbers."""
    return f"<tr>{''.join(map(_cell, row.values()))}</tr>"


def _cell(value: Any) -> str:
    kind = "" if isinstance(value, str) else ' class="number"'
    return f"<td{kind}>{words(cell(value))}</td>"
