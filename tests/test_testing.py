"""The conformance check passes sound cells and says what is wrong with broken ones."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import tanh

import lstm_jax as lj
from lstm_jax.cells import sigmoid
from lstm_jax.testing import check_cell
from tests.cells_under_test import Uneven

LSTM, MinGRU = lj.cells.LSTM, lj.cells.MinGRU
KEPT = []


def test_a_sound_cell_passes_in_float32():
    check_cell(LSTM(4))


def test_a_sound_cell_passes_in_float64(x64):
    check_cell(Uneven(3), input_size=1, seed=1)


def after(change):
    """An LSTM whose update is followed by `change(new, activated) -> what update returns`."""
    return lambda self, gates, state, theta: change(*LSTM.update(self, gates, state, theta))


def swapped(new, activated):
    return new._replace(h=new.c, c=new.h), activated


def dropped_term(self, gates, state, theta):
    c = sigmoid(gates.f) * state.c + sigmoid(gates.i) * tanh(gates.g)
    return state._replace(h=tanh(c), c=c), gates._replace(i=c * 0, f=c * 0, g=c * 0, o=c * 0)


def stuck(self, gates, state, theta):
    """Forgets to write c."""
    new, activated = LSTM.update(self, gates, state, theta)
    return new._replace(c=state.c), activated


def forgetful(self, gates, state, theta):
    """Never reads c."""
    return LSTM.update(self, gates, state._replace(c=jnp.zeros_like(state.c)), theta)


def noisy(new, activated):
    return new._replace(h=new.h * np.random.default_rng().uniform(0.5, 1)), activated


def keeping(new, activated):
    KEPT.append(new.h)
    return new, activated


def sharp(self, gates, state, theta):
    """Has no derivative where c is zero, as at a start."""
    new, activated = LSTM.update(self, gates, state, theta)
    return new._replace(h=new.h / (1 + jnp.sqrt(state.c**2))), activated


def unbounded(self, gates, state, theta):
    new, activated = LSTM.update(self, gates, state, theta)
    return new, activated._replace(f=gates.f)


def per_state(self, gates, state, theta):
    new, activated = LSTM.update(self, gates, state, theta)
    return new._replace(h=new.h / jnp.sum(state.c**2)), activated


MUTANTS = {
    "reversed": (after(lambda new, gates: (gates, new)), {}, "update must return its state as"),
    "bare": (after(lambda new, gates: ((new.h, new.c), gates)), {}, "its state as .* got tuple"),
    "alone": (after(lambda new, gates: new), {}, "update must return a pair"),
    "swapped": (after(swapped), {}, r"h leaves its range \[-1, 1\]"),
    "stuck": (stuck, {}, "state c is not used|gate f is not used"),
    "forgetful": (forgetful, {}, "gate f is not used"),
    "dropped_term": (dropped_term, {}, "gate o is not used"),
    "scalar": (
        after(lambda new, gates: (new._replace(c=new.c.sum()), gates)),
        {},
        r"state.c must be an array of shape \(4,\), got \(\)",
    ),
    "doubled": (
        after(lambda new, gates: (new, gates._replace(o=jnp.concatenate([gates.o, gates.o])))),
        {},
        r"gates.o must be an array of shape \(4,\), got \(8,\)",
    ),
    "wide": (
        after(lambda new, gates: (new._replace(c=new.c.astype(jnp.float32)), gates)),
        {},
        "state.c must have the dtype bfloat16, got float32",
    ),
    "noisy": (after(noisy), {}, "update is impure: the same arguments"),
    "unbounded": (unbounded, {}, r"f leaves its range \[0, 1\]"),
    "per_state": (per_state, {}, "h is not finite"),
    "sharp": (sharp, {}, "gradients of .* is not finite"),
    "twice": (LSTM.update, dict(gates=("i", "f", "f", "o")), "gates has a name twice"),
    "listed": (LSTM.update, dict(states=["h", "c"]), "states must be a tuple of names"),
    "without_h": (LSTM.update, dict(states=("m", "c")), "states must have h, or the cell methods"),
    "misnamed": (
        LSTM.update,
        dict(bias={"z": 1.0}),
        r"bias must name some of .*'o'\], got \['z'\]",
    ),
    "misranged": (
        LSTM.update,
        dict(ranges={"z": (0, 1)}),
        r"ranges must name some of .*, got \['z'\]",
    ),
    "misfit": (LSTM.update, dict(widths=lambda self: {"c": 3}), "update fails on one row"),
    "fed_a_number": (
        LSTM.update,
        dict(feedback=lambda self, state: state.h.sum()),
        "feedback must be an array of shape",
    ),
    "idle": (
        LSTM.update,
        dict(init_theta=lambda self, key: {"p": jnp.ones(self.hidden)}),
        "theta.p is not used",
    ),
    "drawn_anew": (
        LSTM.update,
        dict(init_theta=lambda self, key: {"p": np.random.default_rng().normal(size=2)}),
        "init_theta is impure",
    ),
}


def doubled(self, gates, theta):
    a, b, activated = MinGRU.linear(self, gates, theta)
    return a, 2 * b, activated


LINEAR_MUTANTS = {
    "apart": (doubled, "linear must agree with update: a \\* h \\+ b"),
    "pair": (lambda self, *given: MinGRU.linear(self, *given)[:2], "linear must return three"),
    "narrow": (
        lambda self, *given: (gates := MinGRU.linear(self, *given)) and (gates[0][0], *gates[1:]),
        r"linear: a must be an array of shape \(3,\), got \(\)",
    ),
}


@pytest.mark.parametrize("name", LINEAR_MUTANTS)
def test_a_wrong_linear_beside_an_update_is_caught_by_name(name):
    linear, message = LINEAR_MUTANTS[name]

    def update(self, gates, state, theta):
        return MinGRU(3).update(gates, state, theta)

    words = {"linear": linear, "update": update, "__module__": __name__}
    with pytest.raises(AssertionError, match=message):
        check_cell(dataclasses.dataclass(frozen=True)(type("MinGRU", (MinGRU,), words))(3))


@pytest.mark.slow  # the page of cells checks another
def test_a_sound_noisy_cell_passes():
    check_cell(lj.cells.Zoneout(lj.cells.LSTM(3), {"h": 0.4, "c": 0.3}))


def multiplied(self, gates, state, theta, draws=None):
    """An LSTM whose h is multiplied by what was drawn."""
    new, activated = LSTM.update(self, gates, state, theta)
    return new._replace(h=new.h * (1.0 if draws is None else draws.share)), activated


def unmoved(self, gates, state, theta, draws=None):
    return LSTM.update(self, gates, state, theta)


def share(key):
    return jax.random.uniform(key, (4,))


def of_a_key_of_its_own(key):
    return share(jax.random.key(0))


def of_no_key(key):
    return jnp.asarray(np.random.default_rng().uniform(0.5, 1, 4))


def beyond(key):
    return 9 * jax.random.normal(key, (4,))


NOISY_MUTANTS = {
    "keyless": (multiplied, of_a_key_of_its_own, "draw: the key is not used, all keys give the"),
    "impure": (multiplied, of_no_key, "draw is impure"),
    "far": (multiplied, beyond, r"h leaves its range \[-1, 1\] with draws"),
    "deaf": (unmoved, share, "draw: share is not used, no state depends on it"),
    "closed": (LSTM.update, share, "update fails on one row of the declared widths with draws"),
    "scalar": (multiplied, jax.random.uniform, "draw: share must be a vector of floats, got "),
    "whole": (multiplied, lambda key: jnp.arange(4), "draw: share must be a vector of floats"),
}


@pytest.mark.parametrize("name", NOISY_MUTANTS)
def test_a_noisy_mutant_is_caught(name):
    update, draw, message = NOISY_MUTANTS[name]
    words = {"update": update, "draw": lambda self, theta, key: {"share": draw(key)}}
    kind = type("Mutant", (LSTM,), {**words, "__module__": __name__})
    with pytest.raises(AssertionError, match=message):
        check_cell(dataclasses.dataclass(frozen=True)(kind)(4))


UNIFORM_MUTANTS = {
    "other": (dict(input_activation="s"), "uniform\\(\\) must give the cell's results, repeated"),
    "fewer": (dict(output_gate=False), "uniform\\(\\) must have the same gates"),
    "narrow": (dict(size=2), "uniform\\(\\): i must have width 4"),
}


@pytest.mark.parametrize("name", UNIFORM_MUTANTS)
def test_a_uniform_cell_of_other_equations_is_caught(name):
    """Blocks of four cells each; as they are, they pass."""
    words, message = UNIFORM_MUTANTS[name]

    def uniform(self):
        return lj.cells.MemoryBlocks(4, **words)

    wrong = {"uniform": uniform, "__module__": __name__}
    kind = dataclasses.dataclass(frozen=True)(type("Blocks", (lj.cells.MemoryBlocks,), wrong))
    with pytest.raises(AssertionError, match=message):
        check_cell(kind(4, size=4))


def test_an_update_that_keeps_what_it_was_given_is_caught():
    kind = type("keeping", (LSTM,), {"update": after(keeping), "__module__": __name__})
    with pytest.raises(AssertionError, match="update is impure: its arguments outlive the call"):
        check_cell(dataclasses.dataclass(frozen=True)(kind)(4))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_name(name):
    update, words, message = MUTANTS[name]
    kind = type(name, (LSTM,), {**words, "update": update, "__module__": __name__})
    cell = dataclasses.dataclass(frozen=True)(kind)(4)
    with pytest.raises(AssertionError, match=message) as caught:
        check_cell(cell)
    assert re.match(rf"{name}\(hidden=4\): ", str(caught.value))


@pytest.mark.parametrize(
    "call",
    [
        check_cell,
        lj.nn.SequenceSpec,
        lambda cell: lj.cells.Zoneout(cell, {}),
        lambda cell: lj.init(cell, jax.random.key(0), 3),
        lambda cell: lj.unroll(cell, lj.init(LSTM(4), jax.random.key(0), 3), jnp.ones((5, 2, 3))),
    ],
)
def test_what_is_no_cell_is_refused(call):
    with pytest.raises(TypeError, match="cell must be a cell, such as LSTM"):
        call(LSTM)


def test_a_matrix_among_the_small_parameters_is_caught():
    words = {"init_theta": lambda self, key: {"w": jnp.eye(4)}, "__module__": __name__}
    cell = dataclasses.dataclass(frozen=True)(type("Wide", (LSTM,), words))(4)
    with pytest.raises(
        AssertionError, match="return vectors and scalars, got w of shape \\[4, 4\\]"
    ):
        check_cell(cell)


def test_the_setting_of_float64_is_left_alone():
    with pytest.raises(AssertionError):
        check_cell(dataclasses.make_dataclass("Bare", [], bases=(lj.Cell,), frozen=True)(2))
    assert jnp.ones(1).dtype == jnp.float32
