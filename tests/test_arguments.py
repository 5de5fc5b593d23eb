"""Arguments of the wrong kind are refused by name, with an example of the right one."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells, diagnostics, engines, interop, linen, nn
from lstm_jax.tasks import heads

LSTM, KEY, X = cells.LSTM(3), jax.random.key(0), jnp.ones((4, 2, 2))
PARAMS, STATE = lj.init(LSTM, KEY, 2), lj.initial_state(LSTM, 2)
WRONG: Any = (cells.LSTM, 0.5, PARAMS, ((PARAMS,),))
CLASS, HALF, ONE, STACK = WRONG
THREE: Any = np.int64(3)
SPEC = nn.SequenceSpec(LSTM, 2, 1)
MODEL = SPEC.init(KEY)
GIVEN: dict[str, Any] = dict(
    engine="auto", input_size=2, key=KEY, layers=((PARAMS,),), loss=jnp.sum, params=PARAMS,
    rates={}, rngs=nnx.Rngs(0), state=STATE, tensors={}, tree={}, weights={},
    x=X, x_t=X[0],
)  # fmt: skip


def parameters(door: Any) -> dict[str, inspect.Parameter]:
    call = door.__init__ if inspect.isclass(door) else door
    return dict(inspect.signature(call).parameters)


DOORS = {  # what takes a cell, but for two functions of a cell that is checked already
    f"{room.__name__}.{name}": door
    for room in (lj, cells, engines, nn, linen, interop, diagnostics)
    for name, door in vars(room).items()
    if callable(door) and getattr(door, "__module__", "").startswith(room.__name__)
    if not name.startswith("_") and name not in ("feedback_parts", "mask_params")
    if "cell" in parameters(door)
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_class_is_no_cell(door):
    needed = [
        name
        for name, parameter in parameters(door).items()
        if parameter.default is parameter.empty and name in GIVEN
    ]
    with pytest.raises(TypeError, match=r"cell must be a cell, such as LSTM\(64\), got <class"):
        door(cell=cells.LSTM, **{name: GIVEN[name] for name in needed})


def test_the_doors_are_found():
    found = {name.rpartition(".")[2] for name in DOORS}
    assert found >= {"init", "unroll", "Recurrent", "SequenceSpec", "from_torch", "jacobians"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interop.to_torch(LSTM, ONE), r"layers must be .* \(\(params,\),\), got CellPa"),
        (lambda: interop.to_torch(LSTM, (ONE,)), "layers must be a tuple of layers, .*, got tu"),
        (lambda: interop.as_stack(LSTM, ONE), "layers must be a tuple of layers, .*, got CellP"),
        (lambda: interop.with_layers({}, ONE), "layers must be a tuple of layers, .*, got Cell"),
        (lambda: interop.to_linen(LSTM, STACK), "params must be the CellParams of one layer"),
        (lambda: interop.to_nnx(LSTM, STACK), "params must be the CellParams of one layer"),
        (lambda: interop.to_keras(LSTM, STACK), "params must be the CellParams of one layer"),
        (lambda: interop.from_torch(LSTM, HALF), r"tensors must be the state_dict\(\), a dictiona"),
        (lambda: interop.from_linen(LSTM, HALF), "tree must be .* a linen cell, a dictionary"),
        (lambda: interop.from_nnx(LSTM, HALF), "tree must be .* an NNX cell, a dictionary"),
        (lambda: interop.from_keras(LSTM, HALF), "weights must be .*layer.weights, got 0.5"),
        (lambda: interop.load_model("", CLASS), r"classes must be a list .* \[MyCell\], got"),
        (lambda: lj.load("", CLASS), r"classes must be a list .* \[MyCell\], got <class"),
        (lambda: lj.load("", [HALF]), r"classes must be .*, not an instance, got 0.5"),
        (lambda: heads.Quantiles(HALF), r"levels must be a tuple of levels, .* got 0.5"),
        (lambda: cells.Zoneout(LSTM, HALF), "rates must be a dictionary of rates by state, .*0.5"),
        (lambda: SPEC.apply(MODEL, X, rates=nn.Rates(zoneout=HALF)), "zoneout must be"),
        (lambda: SPEC.init(KEY, gate_bias=HALF), "gate_bias must be a dictionary, .* got 0.5"),
        (lambda: SPEC.build(HALF), r"rngs must be nnx.Rngs, such as nnx.Rngs\(0\), got 0.5"),
        (lambda: nn.Recurrent(LSTM, 2, rngs=HALF), r"rngs must be nnx.Rngs, such as .*, got 0.5"),
        (lambda: linen.Recurrent(LSTM).init(KEY, X, None), r"call \(carry, x\), got None"),
        (lambda: linen.from_tree(LSTM, HALF), "tree must be variables.* of the module, got 0.5"),
        (lambda: nn.Stack(HALF), "layers must be a list of layers, .* got 0.5"),
        (lambda: nn.SequenceSpec(LSTM, b=HALF), "b must be an initialiser, such as .* got 0.5"),
        (lambda: SPEC.apply(MODEL, X, rates=HALF), "rates must be lj.nn.Rates, .* got 0.5"),
        (lambda: SPEC.apply(MODEL, X, key=HALF), "key must be a PRNG key such as .* got 0.5"),
        (lambda: SPEC.apply(MODEL, None), "x must be an array of numbers, got NoneType"),
        (lambda: SPEC.apply(ONE, X), "params must be those of `init` .*, got CellParams"),
    ],
)  # fmt: skip
def test_a_wrong_kind_is_named(call, words):
    with pytest.raises(TypeError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SPEC.apply({"head": {}}, X), r"params must be those of `init` .*, got \['head'\]"),
        (lambda: lj.init(LSTM, KEY, HALF), "input_size must be an integer of at least 0, got 0.5"),
        (lambda: lj.init(LSTM, KEY, THREE), r"got np.int64\(3\): write int\(np.int64\(3\)\)"),
        (lambda: cells.LSTM(True), "hidden must be an integer of at least 1, got True$"),
        (lambda: cells.parameter_count(LSTM, HALF), "input_size must be an integer of at least 0"),
        (lambda: SPEC.unroll(MODEL, X, STATE), "state must be .* of 1 layers, got LSTMState of 2"),
        (lambda: SPEC.unroll(MODEL, X, initial=HALF), "initial must be .* of 1 layers, got float"),
        (lambda: lj.initial_state(LSTM, -1), r"batch must not be negative, got \(-1,\)"),
        (lambda: SPEC.initial_state(MODEL, -1), "batch must not be negative"),
    ],
)
def test_a_wrong_size_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
