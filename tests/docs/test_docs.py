"""The documents tell the truth: their quoted lines, links, Python, and numbers."""

import functools
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.report.claims import VERDICTS
from scripts import _figures as figures

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
LSTM = (ROOT / "docs" / "lstm.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTE = re.compile(r"# ([\w/]+\.py)\n(.*)", re.DOTALL)
ANY_DECIMAL = re.compile(r"\d*\.\d+(?:e[-+]\d+)?|\d+e[-+]\d+|\d+%")


def python(text: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language == "python"]


def quotes(text: str) -> list[tuple[str, str]]:
    """The file and the lines of each block of Python that begins with a path."""
    return [(m[1], m[2]) for m in map(QUOTE.match, python(text)) if m]


def stands_in(lines: str, source: str) -> bool:
    """Whether `lines` are whole lines of `source` in a row, but for their indentation."""
    wanted = textwrap.dedent(lines).splitlines()
    rows = source.splitlines()
    windows = (rows[n : n + len(wanted)] for n in range(len(rows)))
    return any(textwrap.dedent("\n".join(w)).splitlines() == wanted for w in windows)


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_quoted_lines_are_in_the_file_they_are_said_to_be_in(document):
    for file, lines in quotes(document.read_text(encoding="utf-8")):
        assert stands_in(lines, (ROOT / file).read_text(encoding="utf-8")), (file, lines)


def test_every_equation_of_the_lstm_is_quoted():
    body = (
        (ROOT / "lstm_jax/cells/lstm.py").read_text(encoding="utf-8").split('of one row."""\n')[1]
    )
    equations = textwrap.dedent(body).splitlines()[:3]
    quoted = [lines for file, lines in quotes(LSTM) if file == "lstm_jax/cells/lstm.py"]
    assert quoted[0].splitlines() == equations
    assert len(quotes(LSTM)) >= 14


@pytest.mark.parametrize(
    "lines",
    [
        "c = f * state.c + i * g\nc = f * state.c + i * g\n",
        "c = i * state.c + f * g\n",
        "c = f *\n",
    ],
)
def test_a_line_that_is_not_in_the_file_is_seen(lines):
    assert not stands_in(lines, (ROOT / "lstm_jax/cells/lstm.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif "://" not in link:
            assert (document.parent / link.partition("#")[0]).exists(), link


def test_the_python_of_the_lstm_page_runs(capsys):
    names: dict[str, Any] = {"__name__": "lstm"}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for block in python(LSTM):
            if not QUOTE.match(block):
                exec(compile(block, "docs/lstm.md", "exec"), names)
    assert names["trace"].gates.f.shape == (41, 2, 16)
    assert capsys.readouterr().out


def test_the_python_of_the_cells_page_runs(standard_promotion, monkeypatch):
    """Of its two cells the quiet one is checked with the README, which has it too."""
    check = lj.testing.check_cell
    monkeypatch.setattr(lj.testing, "check_cell", lambda cell: cell.noisy and check(cell))
    page = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "cells"}
    with jax.numpy_rank_promotion("allow"):  # as readers have it
        for block in python(page):
            exec(compile(block, "docs/cells.md", "exec"), names)
    assert names["h"].shape == (20, 4, 8)
    assert names["test"].n.tolist() == [500] * 8
    np.testing.assert_allclose(names["y_t"], names["y"][-1], atol=1e-5)
    losses = np.asarray(names["losses"])
    assert losses.shape == (8, 50) and losses[4, -1] < losses[4, 0]


@pytest.mark.parametrize("page", ["results.md", "results_paper.md"])
def test_every_verdict_is_one_of_the_few(page):
    text, inside, found = (ROOT / "docs" / page).read_text(encoding="utf-8"), False, set()
    for line in text.splitlines():
        if inside and line.startswith("|"):
            found.add(line.split(" | ")[-1].removesuffix(" |"))
        inside = line.endswith("| verdict |") or (inside and line.startswith("|"))
    assert found - {"---", "--- |"} <= set(VERDICTS) and len(found) > 2


# The numbers. -------------------------------------------------------------------------------------


def numbers():
    return json.loads((ROOT / "docs/figures/lstm.json").read_text(encoding="utf-8"))


def say(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def kept(bias: float) -> str:
    return say((1 / (1 + np.exp(-bias))) ** 100)


def span(values: list[float]) -> str:
    return f"{say(min(values))} to {say(max(values))}"


def estimate(gains: dict[str, list[float]] | None) -> str:
    return f"{say(gains['100'][0])} ({span(gains['100'])})" if gains else ""


def told() -> list[str]:
    """Every sentence of docs/lstm.md with a number in it, the number as it was computed."""
    carousel, gates = numbers()["carousel"], numbers()["gates"]

    def left(name, path, lag="300"):
        return carousel[name][path][lag]

    rnn, steep = (left(n, "whole", "100")[0] for n in ("tanh RNN", "tanh RNN, w_h × 1.5"))
    biases = {"LSTM, bias 0": kept(0), "LSTM, bias 1": kept(1), "LSTM, bias 5": kept(5)}
    biases["LSTM, bias 5, input bias -5"] = kept(5)
    rows = [
        f"| {name} | {biases.get(name, '')} | {estimate(paths.get('cell'))} | "
        f"{estimate(paths['whole'])} |"
        for name, paths in carousel.items()
    ]
    bias_1, chrono = left("LSTM, bias 1", "whole"), left("LSTM, chrono", "whole")
    first, last = (gates[f"size of the symbol's part of c, {n} step"] for n in ("first", "last"))
    early, late = (
        gates[f"share of it that the mark wrote, {n}"] for n in ("after 5 steps", "last step")
    )
    explained = gates["share of the variance of c_T that the symbol explains, least unit"]
    (right,) = {f"{share:.0%}" for share in gates["accuracy"]}
    further = [f"{share:.0%}" for share in gates["accuracy at ten times the lag"]]
    return [
        *(re.sub(r" +", " ", row) for row in rows),
        f"only {say(rnn)} of a change is left after 100 steps; with the same weights times 1.5 it "
        f"has grown to {say(steep)}.",
        f"sigmoid(1) is {1 / (1 + np.exp(-1)):.2g}, and its 100th power is {kept(1)}; for "
        f"sigmoid(5) the power is {kept(5)}.",
        f"{say(bias_1[0])} is left after 300 steps, with a wide range ({span(bias_1[1:])}).",
        f"({say(chrono[0])} is left after 300 steps, "
        f"{say(left('LSTM, chrono', 'cell')[0])} along the cell)",
        f"learn it in {span(gates['updates'])} updates and then answer {right} of 2,000 fresh",
        f"in each of the {5 * figures.MODEL.cell.hidden} units the marked symbol explains at least "
        f"{np.floor(100 * min(explained)) / 100} of the variance",
        f"grows from {span(first)} at the first step to {span(last)} at the last.",
        f"The write at the mark, times the forget gates since, makes up {span(early)} of it after "
        f"5 steps, and only {span(late)} at the last step.",
        f"accuracy falls to {span(gates['accuracy without w_h'])} (chance is "
        f"{say(figures.NEAR.chance)}).",
        f"right on {', '.join(further[:4])} and {further[4]} of 2,000 sequences.",
    ]


def test_every_number_is_the_one_that_was_computed():
    text = re.sub(r"[ \n]+", " ", FENCE.sub("", LSTM))
    for sentence in told():
        assert sentence in text, sentence
        text = text.replace(sentence, "")
    assert ANY_DECIMAL.findall(text) == []


def test_along_the_cell_a_change_decays_as_the_sigmoid_of_the_bias_to_the_lag(x64):
    cell, biases = lj.cells.LSTM(3), np.array([0.0, 1.0, 5.0])
    b = np.concatenate([np.zeros(3), biases, np.zeros(6)])
    params = lj.CellParams(jnp.zeros((2, 12)), jnp.zeros((3, 12)), jnp.asarray(b), theta=())
    start = cell.State(*jnp.ones((2, 1, 3)))
    final, _ = jax.jit(functools.partial(lj.unroll, cell))(params, jnp.ones((100, 1, 2)), start)
    np.testing.assert_allclose(final.c[0], 1 / (1 + np.exp(-biases)) ** 100, rtol=1e-12)
    assert [say(c) for c in final.c[0]] == [kept(bias) for bias in biases]


@pytest.mark.parametrize("cell", [lj.cells.LSTM(4), lj.cells.RNN(4)], ids=repr)
def test_a_gain_is_that_of_the_product_of_jacobians_of_steps(x64, cell):
    draw, G, S = np.random.default_rng(0).normal, 4 * len(cell.gates), 4 * len(cell.states)
    w_x, w_h, b = (jnp.asarray(draw(size=shape)) for shape in ((3, G), (4, G), (G,)))
    params = lj.CellParams(w_x, w_h, b, theta=())
    x = jnp.asarray(draw(size=(6, 1, 3)))
    gains = figures.gains_along(cell, *jax.tree.map(lambda leaf: leaf[None], (params, x)))

    def step(flat, x_t):
        state = cell.State(*jnp.split(flat[None], len(cell.states), axis=-1))
        flat = jnp.concatenate(lj.step(cell, params, state, x_t)[0], axis=-1)[0]
        return flat, flat

    go = jax.jit(jax.jacfwd(step, has_aux=True))
    (_, flat), product = go(np.zeros(S), x[0]), np.eye(S)
    for whole, x_t in zip(gains.whole[0], x[1:], strict=True):
        jacobian, flat = go(flat, x_t)
        product = jacobian @ product
        np.testing.assert_allclose(whole, np.linalg.norm(product[-4:, -4:]) / 2, rtol=1e-12)
    if "f" in cell.gates:
        f = jax.jit(functools.partial(lj.trace, cell))(params, x).gates.f[1:, 0]
        along = np.sqrt(np.mean(np.cumprod(f, axis=0) ** 2, axis=-1))
        np.testing.assert_allclose(gains.cell[0], along, rtol=1e-12)


def test_the_share_of_the_mark_is_all_where_nothing_is_added_and_a_sixth_of_six_equal_writes():
    draw = np.random.default_rng(0)
    batch: Any = lj.Batch(x=None, y=draw.integers(0, figures.NEAR.symbols, 50))  # pyright: ignore
    i, f, g, o = draw.uniform(0.5, 1, (4, 1, 6, 50, 3))

    def share():
        c = [np.zeros_like(i[:, 0])]
        for t in range(6):
            c.append(f[:, t] * c[-1] + i[:, t] * g[:, t])
        states = lj.LSTMState(h=o, c=np.stack(c[1:], axis=1))
        gates = figures.MODEL.cell.Gates(i, f, g, o)
        trace: Any = lj.engines.Trace(final=None, h=o, states=states, gates=gates)  # pyright: ignore
        return figures.share_of_the_mark(batch, trace, 5)

    i[:, 1:] = 0
    np.testing.assert_allclose(share(), 1)
    i[:], g[:], f[:] = i[:, :1], g[:, :1], 1
    np.testing.assert_allclose(share(), 1 / 6)


@pytest.mark.slow
def test_the_carousel_is_what_the_page_says():
    measured = {
        name: figures.gains(*start) for name, start in (figures.STARTS | figures.NOT_DRAWN).items()
    }
    again = figures.carousel_numbers(measured, (100, 300))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2),
        jax.tree.map(list, again, is_leaf=lambda v: isinstance(v, tuple)),
        numbers()["carousel"],
    )


@pytest.mark.slow
def test_trained_networks_do_what_the_page_says(standard_promotion):
    """Their numbers hang on rounding, which training amplifies: what is said of them does not."""
    result = figures.train()
    batch, trace = figures.traces(result)
    again = figures.gates_numbers(result, batch, trace)
    assert min(again["accuracy"]) > 0.99
    assert max(again["accuracy without w_h"]) < 0.6
    assert min(again["share of the variance of c_T that the symbol explains, least unit"]) > 0.9
    assert max(again["share of it that the mark wrote, after 5 steps"]) < 0.5
    assert max(again["share of it that the mark wrote, last step"]) < 0.05
    assert np.median(again["accuracy at ten times the lag"]) > 0.99
    assert figures.gates_figure(batch, trace).axes
