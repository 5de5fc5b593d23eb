"""The catalogue: equations against NumPy, written out again from the papers, and the laws."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.cells import parameter_count
from lstm_jax.engines import Reference, Scan, mosaic
from lstm_jax.testing import check_cell
from scripts._catalogue import CATALOGUE
from tests.cells_under_test import drawn_params
from tests.oracle import sigmoid
from tests.products import slow


class Row(NamedTuple):
    """One row in NumPy: pre-activations a, state s, small parameters p, each by name."""

    a: dict
    s: dict
    p: dict


def vanilla(
    row, i=None, f=None, o=None, g=np.tanh, out=np.tanh, peepholes=True, couple=False, clip=np.inf
):
    """Greff et al. 2017, section 2: y, c from the pre-activations; a given gate is not learned."""
    a, s, p = row
    p = p if peepholes else dict.fromkeys(("p_i", "p_f", "p_o"), 0.0)
    i = sigmoid(a["i"] + p["p_i"] * s["c"]) if i is None else i
    f = 1 - i if couple else sigmoid(a["f"] + p["p_f"] * s["c"]) if f is None else f
    c = g(a["g"]) * i + s["c"] * f
    c = np.where(abs(c.real) > clip, np.sign(c.real) * clip, c)
    o = sigmoid(a["o"] + p["p_o"] * c) if o is None else o
    return dict(h=out(c) * o, c=c, i=i, f=f, o=o)


def layer_norm(row):
    """Ba et al. 2016, equations 20 to 22 of the supplement, the three biases of a gate in one."""

    def norm(v, gain, shift=0.0):
        mu = v.sum() / v.size
        return gain * (v - mu) / np.sqrt(((v - mu) ** 2).sum() / v.size + 1e-5) + shift

    def product(*blocks):
        gain = np.concatenate([p[f"gain_{name}"] for name in blocks])
        return norm(np.concatenate([a[name] for name in blocks]), gain)

    a, s, p = row
    from_x, from_h = product("xi", "xf", "xg", "xo"), product("hi", "hf", "hg", "ho")
    i, f, g, o = from_x.reshape(4, -1) + from_h.reshape(4, -1) + [a["i"], a["f"], a["g"], a["o"]]
    c = sigmoid(f) * s["c"] + sigmoid(i) * np.tanh(g)
    return dict(h=sigmoid(o) * np.tanh(norm(c, p["gain_c"], p["bias_c"])), c=c)


def janet(row, beta):
    a, s, _ = row
    new = sigmoid(a["f"]) * s["h"] + (1 - sigmoid(a["f"] - beta)) * np.tanh(a["g"])
    return dict(h=new)


def ur_lstm(row):
    """Gu et al. 2020: the gate is a mean, weighted by r, of 1 - (1 - f)^2 and f^2."""
    a, s, _ = row
    f, r = sigmoid(a["f"]), sigmoid(a["r"])
    gate = r * (1 - (1 - f) ** 2) + (1 - r) * f**2
    c = gate * s["c"] + (1 - gate) * np.tanh(a["g"])
    return dict(h=sigmoid(a["o"]) * np.tanh(c), c=c)


def min_gru(row):
    z = sigmoid(row.a["z"])
    return dict(h=(1 - z) * row.s["h"] + z * row.a["n"])


def min_lstm(row):
    f, i = sigmoid(row.a["f"]), sigmoid(row.a["i"])
    return dict(h=f / (f + i) * row.s["h"] + i / (f + i) * row.a["n"])


def s_lstm(row, exponential=False):
    """Beck et al. 2024, equations 8 to 17, the stabilised gates of 15 to 17."""
    a, s, _ = row
    f = np.exp(a["f"]) if exponential else sigmoid(a["f"])
    m = np.where(np.log(f).real + s["m"].real > a["i"].real, np.log(f) + s["m"], a["i"])
    i, f = np.exp(a["i"] - m), np.exp(np.log(f) + s["m"] - m)
    c, n = f * s["c"] + i * np.tanh(a["z"]), f * s["n"] + i
    return dict(h=sigmoid(a["o"]) * c / n, c=c, n=n, m=m)


def memory_blocks(row, size, output_gate=True, squash=(lambda a: 4 * sigmoid(a) - 2,
                                                       lambda c: 2 * sigmoid(c) - 1)):  # fmt: skip
    """Hochreiter & Schmidhuber 1997, appendix A.1: cell v of block j at j * size + v."""
    a, s, _ = row
    h, c = np.zeros_like(s["h"]), np.zeros_like(s["c"])
    y_in = sigmoid(a["i"])
    y_out = sigmoid(a["o"]) if output_gate else np.ones_like(y_in)
    for j in range(len(y_in)):
        for v in range(j * size, (j + 1) * size):
            kept = sigmoid(a["f"][j]) * s["c"][v] if "f" in a else s["c"][v]
            c[v] = kept + y_in[j] * squash[0](a["g"][v])
            h[v] = y_out[j] * squash[1](c[v])
    return dict(h=h, c=c, i=y_in, o=y_out, f=sigmoid(a["f"]) if "f" in a else None)


def identity(x):
    return x


H = 6
EQUATIONS: dict[lj.Cell, Callable[[Row], dict]] = {
    lj.cells.odyssey("vanilla", H): vanilla,
    lj.cells.odyssey("NIG", H): functools.partial(vanilla, i=1.0),
    lj.cells.odyssey("NFG", H): functools.partial(vanilla, f=1.0),
    lj.cells.odyssey("NOG", H): functools.partial(vanilla, o=1.0),
    lj.cells.odyssey("NIAF", H): functools.partial(vanilla, g=identity),
    lj.cells.odyssey("NOAF", H): functools.partial(vanilla, out=identity),
    lj.cells.odyssey("CIFG", H): functools.partial(vanilla, couple=True),
    lj.cells.odyssey("NP", H): functools.partial(vanilla, peepholes=False),
    lj.cells.odyssey("FGR", H): vanilla,
    lj.cells.LayerNormLSTM(H): layer_norm,
    lj.cells.JANET(H): functools.partial(janet, beta=1.0),
    lj.cells.JANET(H, beta=0.0): functools.partial(janet, beta=0.0),
    lj.cells.URLSTM(H): ur_lstm,
    lj.cells.MinGRU(H): min_gru,
    lj.cells.MinLSTM(H): min_lstm,
    lj.cells.MemoryBlocks(H, size=2): functools.partial(memory_blocks, size=2),
    lj.cells.MemoryBlocks(H, output_gate=False, recurrent=False): functools.partial(
        memory_blocks, size=1, output_gate=False
    ),
    lj.cells.MemoryBlocks(H, input_activation="s", output_activation="identity"): functools.partial(
        memory_blocks, size=1, squash=(sigmoid, identity)
    ),
    lj.cells.MemoryBlocks(H, size=2, forget_gate=True): functools.partial(memory_blocks, size=2),
    lj.cells.MemoryBlocks(H, size=2, forget_gate=True, gate_recurrence=False): functools.partial(
        memory_blocks, size=2
    ),
    lj.cells.PeepholeLSTM(H, clip=0.4): functools.partial(vanilla, clip=0.4),
    lj.cells.PeepholeLSTM(H, peepholes=False, forget_gate="coupled", clip=0.2): functools.partial(
        vanilla, peepholes=False, couple=True, clip=0.2
    ),
    lj.cells.SLSTM(H, heads=2): s_lstm,
    lj.cells.SLSTM(H, forget_gate="exponential"): functools.partial(s_lstm, exponential=True),
}


@pytest.mark.parametrize("cell", EQUATIONS, ids=str)
def test_equations(cell, x64):
    """Every new state and its derivative, with small parameters that are not those of the start.

    The derivative of what NumPy computes is that of its complex numbers: f(v + 1e-30 i d), whose
    imaginary part is 1e-30 times the derivative of f along d, and nothing is rounded off.
    """
    rng = np.random.default_rng(0)
    theta = lj.init(cell, jax.random.key(0), 2, dtype=jnp.float64).theta

    def draw():
        return Row(
            {name: 2 * rng.normal(size=cell.width(name)) for name in cell.gates},
            {name: rng.normal(size=cell.width(name)) for name in cell.states},
            {name: rng.normal(size=value.shape) for name, value in theta._asdict().items()},
        )

    def update(row):
        return cell.update(cell.Gates(**row.a), cell.State(**row.s), cell.Theta(row.p))[0]

    row, along = draw(), draw()
    row.s.update({name: abs(row.s[name]) for name in row.s if cell.ranges.get(name) == (0, np.inf)})
    new, slope = jax.jit(lambda *given: jax.jvp(update, *given))((row,), (along,))
    want = EQUATIONS[cell](jax.tree.map(lambda v, d: v + 1e-30j * d, row, along))
    for name in cell.states:
        values = np.asarray(want[name], complex)
        np.testing.assert_allclose(getattr(new, name), np.real(values), rtol=1e-12, err_msg=name)
        got = getattr(slope, name)
        np.testing.assert_allclose(got, 1e30 * np.imag(values), 1e-10, 1e-12, err_msg=name)


@pytest.mark.parametrize(
    "cell",
    [
        lj.cells.PeepholeLSTM(3, gate_recurrence=True, clip=0.3),
        lj.cells.LayerNormLSTM(3),
        lj.cells.MinLSTM(3),
        lj.cells.MemoryBlocks(4, size=2, biases="gates", truncated=True),
        lj.cells.SLSTM(4, heads=2),
        *map(
            slow,
            [
                lj.cells.PeepholeLSTM(
                    3, forget_gate="coupled", output_gate=False, gate_recurrence=True
                ),
                lj.cells.JANET(3),
                lj.cells.URLSTM(3),
                lj.cells.MinGRU(3),
            ],
        ),
    ],
    ids=str,
)
def test_laws(cell):
    check_cell(cell)


def test_the_table_of_cells_counts_right(monkeypatch):
    """The page's formulas, numbers and engines; every cell of the package is in it, and timed."""
    monkeypatch.setattr(mosaic, "OLDEST", (0,))  # the table is that of a new jax
    page = Path(__file__).resolve().parents[2] / "docs" / "cells.md"
    row = re.compile(
        r"^\| `(.*?)` \|.*\| (.*?) \| `(.*?)` \| ([\d,]+) \| .*\d{4}.*? "
        r"\| ([\w, ]+) \| \d+\.\d\d, \d+\.\d\d \|$",
        re.MULTILINE,
    )
    rows = row.findall(page.read_text(encoding="utf-8"))
    kinds = set()
    for made, states, formula, number, engines in rows:
        for D, H in ((3, 6), (128, 128)):
            cell = eval(made, {**vars(lj.cells), "H": H})
            assert parameter_count(cell, D) == eval(formula, {"D": D, "H": H}), made
        assert parameter_count(cell, 128) == int(number.replace(",", "")), made
        assert ", ".join(cell.states) == states
        narrow = eval(made, {**vars(lj.cells), "H": 64})
        assert ", ".join(lj.engines.serves(narrow, "gpu")) == engines
        kinds.add(type(cell))
    bases = {lj.Cell, lj.LinearCell}
    assert kinds == {k for k in vars(lj.cells).values() if isinstance(k, type)} - bases
    assert [row[0] for row in rows] == list(CATALOGUE)


def test_without_peepholes_it_is_the_lstm():
    plain, bare = lj.cells.LSTM(H), lj.cells.odyssey("NP", H)
    params = lj.init(plain, jax.random.key(0), 2)
    x = jax.random.normal(jax.random.key(1), (5, 3, 2))
    same = lj.unroll(bare, params._replace(theta=bare.Theta({})), x)[1]
    np.testing.assert_array_equal(same, lj.unroll(plain, params, x)[1])


def test_what_a_cell_does_not_have_does_nothing():
    """Absent weights and biases are zero at first, without effect, and without gradient."""
    for cell in (lj.cells.odyssey("FGR", 2), lj.cells.MemoryBlocks(2, biases="gates")):
        params = jax.device_get(drawn_params(cell, 2, np.random.default_rng(0)))
        ones = jax.tree.map(np.ones_like, params)
        exist = lj.cells.mask_params(cell, ones)
        assert sum(int(a.sum()) for a in jax.tree.leaves(exist)) == parameter_count(cell, 2)
        absent = jax.tree.map(lambda e: 1 - e, exist)
        started = jax.jit(functools.partial(lj.init, cell, input_size=2))(jax.random.key(0))
        assert not any(map(np.any, jax.tree.leaves(jax.tree.map(np.multiply, started, absent))))
        x = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)

        def output(params, cell=cell, x=x):
            _, h = lj.step(cell, params, lj.initial_state(cell, (2,)), x[0])
            return lj.unroll(cell, params, x)[1].sum(), h

        more = jax.tree.map(np.add, params, absent)
        slope = jax.jit(jax.value_and_grad(output, has_aux=True))
        (value, _), (same, gradient) = slope(params), slope(more)
        jax.tree.map(np.testing.assert_array_equal, value, same)
        assert not any(map(np.any, jax.tree.leaves(jax.tree.map(np.multiply, gradient, absent))))


def test_only_g_is_blind_to_the_gates():
    cell = lj.cells.odyssey("FGR", 2)
    state = lj.cells.initial_state(cell)._replace(h=jnp.arange(2.0), f=jnp.full(2, 7.0))
    np.testing.assert_array_equal(np.concatenate(cell.feedback(state)), [0, 1, 0, 0, 7, 7, 0, 0])
    weights = lj.cells.mask_params(
        cell, jax.tree.map(jnp.ones_like, lj.init(cell, jax.random.key(0), 1))
    )
    columns = np.split(np.sum(np.asarray(weights.w_h), 0), 4)
    rows = dict(zip(cell.gates, columns, strict=True))
    assert {name: tuple(map(int, r)) for name, r in rows.items()} == {
        "i": (8, 8), "f": (8, 8), "g": (2, 2), "o": (8, 8)
    }  # fmt: skip


def test_a_projection_cannot_be_wired():
    cell = lj.cells.odyssey("FGR", 2)
    params = lj.init(cell, jax.random.key(0), 1)
    pair = params._replace(w_h=(jnp.ones((8, 1)), jnp.ones((1, 8))))
    with pytest.raises(ValueError, match="w_h must be one matrix, not a pair"):
        lj.unroll(cell, pair, jnp.ones((2, 1, 1)))


@pytest.mark.parametrize(
    "cell, inputs, outputs, output_biases, shortcut, weights",
    [
        (lj.cells.MemoryBlocks(4, biases="gates"), 7, 7, False, False, 264),
        (lj.cells.MemoryBlocks(6, size=2, biases="gates"), 7, 7, False, False, 276),
        (
            lj.cells.MemoryBlocks(
                1, output_gate=False, recurrent=False, biases="none", input_activation="s",
                output_activation="identity",
            ),
            101, 101, False, True, 10504,
        ),
        (lj.cells.MemoryBlocks(2, biases="none"), 54, 2, False, False, 364),
        (lj.cells.MemoryBlocks(2, biases="none"), 1004, 2, False, False, 6064),
        (lj.cells.MemoryBlocks(3), 1, 1, False, False, 102),
        (lj.cells.MemoryBlocks(4, size=2), 2, 1, True, False, 93),
        (lj.cells.MemoryBlocks(4, size=2), 8, 4, True, False, 156),
        (lj.cells.MemoryBlocks(6, size=2), 8, 8, True, False, 308),
        (
            lj.cells.MemoryBlocks(
                8, size=2, biases="gates", forget_gate=True, gate_recurrence=False
            ),
            7, 7, True, True, 424,
        ),
    ],
)  # fmt: skip
def test_weights_of_1997(cell, inputs, outputs, output_biases, shortcut, weights):
    """The counts of table 10 and of the experiments' text, with outputs that read the cells.

    The last is the network with forget gates of 2000.
    """
    read = cell.hidden + (inputs if shortcut else 0) + (1 if output_biases else 0)
    assert parameter_count(cell, inputs) + read * outputs == weights


@pytest.mark.parametrize("engine", [Reference(), Scan(chunk=4)], ids=str)
def test_the_truncated_gradient_flows_through_the_carousel_unchanged(engine):
    """Exactly one at any lag, weights learn all the same, and the numbers are not touched."""
    truncated, full = (lj.cells.MemoryBlocks(4, size=2, truncated=t) for t in (True, False))
    params = lj.init(truncated, jax.random.key(0), 2, w_h=jax.nn.initializers.normal(1.0))
    x = jax.random.normal(jax.random.key(1), (30, 1, 2))
    start = lj.initial_state(truncated, (1,))

    def run(cell):
        def last(params, state):
            final, _ = lj.unroll(cell, params, x, state, engine=engine)
            return final.c.sum(), final

        return jax.grad(last, argnums=(0, 1), has_aux=True)(params, start)

    (cut, whole) = jax.jit(lambda: (run(truncated), run(full)))()
    (d_params, d_start), final = cut
    np.testing.assert_array_equal(d_start.c, np.ones((1, 4)))
    np.testing.assert_array_equal(d_start.h, np.zeros((1, 4)))
    assert np.abs(d_params.w_h).max() > 0
    np.testing.assert_array_equal(final.c, whole[1].c)
    assert np.abs(whole[0][1].c - 1).max() > 1e-3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lj.cells.odyssey("NXG", 2), "variant must be one of .* got 'NXG'"),
        (lambda: lj.cells.PeepholeLSTM(2, forget_gate="two"), "forget_gate must be one of"),
        (lambda: lj.cells.PeepholeLSTM(2, input_activation="relu"), "input_activation must be"),
        (
            lambda: lj.cells.PeepholeLSTM(2, forget_gate="coupled", input_gate=False),
            "forget_gate='coupled' needs an input gate",
        ),
        (lambda: lj.cells.MemoryBlocks(5, size=2), "size must divide hidden = 5, got 2"),
        (lambda: lj.cells.MemoryBlocks(4, biases="cells"), "biases must be one of"),
        (lambda: lj.cells.MemoryBlocks(4, input_activation="tanh"), "input_activation must be one"),
        (lambda: lj.cells.PeepholeLSTM(2, clip=0.0), "clip must be positive, or None, got 0.0"),
        (lambda: lj.cells.SLSTM(5, heads=2), "heads must divide hidden = 5, got 2"),
        (lambda: lj.cells.SLSTM(5, forget_gate="tanh"), "forget_gate must be one of"),
    ],
)
def test_bad_choices_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
