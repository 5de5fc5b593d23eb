"""The associative engine equals the loop, for cells that are linear in their state."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.cells import sigmoid
from lstm_jax.engines import Associative, Reference
from tests.engines.test_engines import assert_close, problem, score


@dataclass(frozen=True)
class Leaky(lj.LinearCell):
    """A rate for each unit of its own, as a user would write it; one gate is its bias alone."""

    gates = ("u", "d")

    @property
    def reads(self):
        return {"u": "x", "d": "b"}

    def init_theta(self, key):
        return {"rate": jax.random.uniform(key, (self.hidden,), minval=-1.0)}

    def linear(self, gates, theta):
        return theta.rate, sigmoid(gates.u) - gates.d, gates


CELLS = [lj.cells.MinLSTM(5), Leaky(5)]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_it_equals_the_loop(cell, x64):
    """Outputs, states and gradients, at every length, under vmap, with all that a loop takes."""
    given = [problem(cell, seed) for seed in (0, 1)]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *given)

    def facts(engine, args):
        def one(smooth, flags):
            return jax.value_and_grad(lambda s: score(cell, engine, *s, *flags))(smooth)

        params, x, state, initial, mask, reset = (jax.tree.map(lambda a: a[0], a) for a in args)
        cuts = [
            lj.unroll(cell, params, x[:t], state, initial=initial, mask=mask[:t], reset=reset[:t],
                      engine=engine)
            for t in (0, 1, 7)
        ]  # fmt: skip
        return (
            jax.vmap(one)(args[:4], args[4:]),
            one((params, x, state, initial), (None,) * 2),
            cuts,
        )

    got, want = (jax.jit(functools.partial(facts, e))(both) for e in (Associative(), Reference()))
    assert_close(got, want, 1e-10)


def test_bfloat16():
    cell = lj.cells.MinGRU(16)
    params, x, *_, mask, reset = problem(cell, dtype=jnp.float32)

    @jax.jit
    def slope(params, x):
        def loss(params, x):
            h = lj.unroll(cell, params, x, mask=mask, reset=reset, engine="associative")[1]
            return jnp.sum(h**2)

        return jax.grad(loss, (0, 1))(params, x)

    low = slope(*jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), jax.device_get((params, x))))
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(low, slope(params, x), 3e-2)


@pytest.mark.parametrize("engine", ["associative", Associative()], ids=str)
def test_other_cells_are_refused_by_name(engine):
    cell = lj.cells.GRU(3)
    message = (
        r"^engine=.*ssociative.* cannot run GRU\(hidden=3\): it is no LinearCell, with a `linear`; "
        r"'reference' and 'scan' can$"
    )
    with pytest.raises(ValueError, match=message):
        lj.unroll(cell, lj.init(cell, jax.random.key(0), 2), jnp.ones((2, 1, 2)), engine=engine)


def test_which_engines_serve_which_cell():
    assert lj.engines.serves(lj.cells.LSTM(3)) == ("reference", "scan")
    assert lj.engines.serves(Leaky(3)) == ("reference", "scan", "associative")


def test_a_linear_cell_keeps_its_word():
    reading = {"gates": ("z", "n"), "reads": {"z": "x"}, "__module__": __name__}
    with pytest.raises(ValueError, match=r"is a LinearCell: its gates \('n',\) must not read h"):
        dataclass(frozen=True)(type("Reading", (lj.LinearCell,), reading))(3)
    double = {"gates": ("z",), "states": ("h", "c"), "__module__": __name__}
    with pytest.raises(ValueError, match=r"it must have one state, got \('h', 'c'\)"):
        dataclass(frozen=True)(type("Double", (lj.LinearCell,), double))(3)
    with pytest.raises(NotImplementedError, match="LinearCell must define linear"):
        lj.LinearCell(3).linear((), ())
