"""Weights that do not fit are refused by the name of the tensor."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import cells, interop
from lstm_jax.nn import SequenceSpec
from tests.cells_under_test import CIFG
from tests.interop.weights import (
    GRU,
    LSTM,
    D,
    FakeTensor,
    H,
    p,
    params_of,
    torch_tensors,
)


def test_layers_that_do_not_belong_into_a_model_are_refused() -> None:
    spec = SequenceSpec(LSTM, D, 2, depth=2)
    params = jax.eval_shape(spec.init, jax.random.key(0))
    one = (params_of(LSTM),)
    with pytest.raises(ValueError, match=r"'1\.b' is missing"):
        interop.with_layers(params, (one,))
    with pytest.raises(ValueError, match=r"'1\.w_x' must be \(3, 12\), got \(2, 12\)"):
        interop.with_layers(params, (one, one))
    with pytest.raises(ValueError, match=r"'0\.w_h' is missing"):
        interop.with_layers(params, ((params_of(LSTM, projected=True),), one))
    with pytest.raises(ValueError, match=r"layers\[1\]\[0\]\.w_x must have D = 3 rows, got 2"):
        interop.as_stack(LSTM, (one, one))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("weight_hh_l1"), "'weight_hh_l1' is missing"),
        (lambda t: t.pop("bias_hh_l0_reverse"), "'bias_hh_l0_reverse' is missing"),
        (lambda t: t.pop("weight_hr_l1"), "'weight_hr_l1' is missing"),
        (lambda t: t.update(weight_ih_l3=t["weight_ih_l1"]), "'weight_ih_l2' is missing"),
        (lambda t: t.update(weight_ih_l99999999999=1.0), "'weight_ih_l2' is missing"),
        (lambda t: t.update(weight_ih=t["weight_ih_l1"]), "'weight_ih' is unexpected"),
        (lambda t: t.update(head=t["bias_ih_l0"]), "'head' is unexpected"),
        (
            lambda t: t.update(weight_hh_l0=t["weight_hh_l0"].T),
            r"'weight_hh_l0' must be \(12, 2\), got \(2, 12\)",
        ),
        (
            lambda t: t.update(weight_hr_l0_reverse=t["weight_hr_l0"][:1]),
            r"'weight_hr_l0_reverse' must be \(2, 3\), got \(1, 3\)",
        ),
        (
            lambda t: t.update(bias_ih_l0=t["bias_ih_l0"].astype("float16")),
            "'bias_ih_l0' must be float32, got float16",
        ),
        (
            lambda t: t.update(weight_ih_l1=t["weight_ih_l0"]),
            r"layers\[1\]\[0\].w_x must have D = 4 rows, got 2",
        ),
    ],
)
def test_the_first_tensor_that_is_wrong_is_named(change: Any, message: str) -> None:
    tensors = torch_tensors(projected=True)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        interop.from_torch(LSTM, tensors)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'weight_ih_l0' must be \(9, 2\), got \(12, 2\)"):
        interop.from_torch(GRU, torch_tensors())
    with pytest.raises(ValueError, match="'weight_hr_l0' is unexpected"):
        interop.from_torch(GRU, torch_tensors(projected=True))
    convert = r"cell must be one of those that convert, LSTM\(hidden=3\), .*, got CIFG"
    for read in (interop.from_torch, interop.from_keras, interop.from_linen, interop.from_nnx):
        with pytest.raises(TypeError, match=convert):
            read(CIFG(H), {})
    with pytest.raises(ValueError, match=r"'dense_i\.kernel' is missing"):
        interop.from_nnx(LSTM, interop.to_linen(GRU, params_of(GRU)))


def test_a_reset_gate_before_the_product_is_refused_by_name() -> None:
    tensors = interop.to_keras(GRU, params_of(GRU))
    with pytest.raises(ValueError, match=r"shape \(9,\) is that of reset_after=False"):
        interop.from_keras(GRU, tensors | {"bias": tensors["bias"][0]})
    with pytest.raises(ValueError, match="whether reset_after is True"):
        interop.from_keras(GRU, {k: tensors[k] for k in ("kernel", "recurrent_kernel")})


def test_what_other_libraries_do_not_have_is_refused() -> None:
    projected = params_of(LSTM, projected=True)
    for write in (interop.to_keras, interop.to_linen, interop.to_nnx):
        with pytest.raises(ValueError, match=r"w_h must be one matrix: .* no projection"):
            write(LSTM, projected)
    with pytest.raises(ValueError, match=r"b of block 'nh' must be zero: flax\.nnx GRU"):
        interop.to_nnx(GRU, params_of(GRU))
    wide = projected._replace(w_h=(jnp.ones((H, H)), jnp.ones((H, 4 * H))))
    with pytest.raises(ValueError, match="projection to 3: torch projects LSTMs only, to less"):
        interop.to_torch(LSTM, ((wide,),))
    above = params_of(LSTM, rows=p)
    with pytest.raises(ValueError, match=r"outputs of one width, got \[2, 3\]"):
        interop.to_torch(LSTM, ((projected,), (above,)))
    with pytest.raises(ValueError, match="one direction, or all two, got \\[1, 2\\]"):
        interop.to_torch(LSTM, ((params_of(LSTM),), (params_of(LSTM), params_of(LSTM))))


def test_parameters_of_another_width_are_refused() -> None:
    wide = params_of(cells.LSTM(H + 1))
    for write in (interop.to_keras, interop.to_linen, interop.to_nnx):
        with pytest.raises(
            ValueError, match=r"params: tensor 'w_x' must be \(2, 12\), got \(2, 16\)"
        ):
            write(LSTM, wide)
    pair = params_of(LSTM, projected=True)
    with pytest.raises(ValueError, match=r"tensor 'w_h\[0\]' must be \(3, 2\), got \(2, 2\)"):
        interop.to_torch(LSTM, ((pair._replace(w_h=(pair.w_h[0][:2], pair.w_h[1])),),))
    short = pair._replace(w_h=(pair.w_h[0][:, :1], pair.w_h[1]))
    with pytest.raises(ValueError, match=r"params: tensor 'w_h' must be \(1, 12\), got \(2, 12\)"):
        interop.to_torch(LSTM, ((short,),))


class Elsewhere(FakeTensor):
    def cpu(self) -> FakeTensor:
        raise NotImplementedError("a meta tensor has no data")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.ones((12, 3), int), "must hold floats, got int64"),
        (np.ones((12, 3), complex), "must hold floats, got complex128"),
        (None, "must hold floats, got object"),
        ([[1.0], []], "cannot be read: "),
        (Elsewhere(np.ones((12, 3), "float32")), "cannot be read: a meta tensor has no data"),
    ],
)
def test_a_tensor_that_is_no_weight_is_named(tensor: Any, message: str) -> None:
    tensors = torch_tensors() | {"weight_ih_l1": tensor}
    with pytest.raises(ValueError, match=f"tensor 'weight_ih_l1' .*{message}"):
        interop.from_torch(LSTM, tensors)


def test_nothing_is_rounded_in_silence() -> None:
    tensors = {name: tensor.astype("float64") for name, tensor in torch_tensors().items()}
    with pytest.raises(ValueError, match="weight_ih_l0 is float64: set jax_enable_x64"):
        interop.from_torch(LSTM, tensors)
