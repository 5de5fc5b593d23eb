"""Our cells as ONNX's recurrent operators: which operator, its attributes and its weights.

    LSTM   gates i o f g, peepholes i o f; f = 1 - i with input_forget
    GRU    gates z r n; linear_before_reset=1 resets after the recurrent product, as ours does
    RNN    tanh or relu

Every operator has two biases, `Wb` beside the input product and `Rb` beside the recurrent one. ONNX
has no projection: with a pair (P, U) the operator's recurrent matrix is P U, and its output h is
multiplied by P. A gate that is one has weights of zero and a bias that saturates it.
"""

from typing import Any

import numpy as np

from lstm_jax.cells import GRU, LSTM, RNN, Cell, PeepholeLSTM
from lstm_jax.interop.layouts import ONNX, kind, split, write
from lstm_jax.types import CellParams

OPEN = 100.0  # sigmoid(100) is one in float32
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "identity": "Affine"}


def check_cell(cell: Cell) -> None:
    """Raises ValueError unless ONNX has an operator for the cell."""
    plain = type(cell) in (LSTM, GRU, RNN)
    peephole = type(cell) is PeepholeLSTM and not cell.gate_recurrence and cell.clip is None
    if not (plain or peephole):
        raise ValueError(
            "cell must be an LSTM, GRU, RNN, or PeepholeLSTM without gate_recurrence and clip: "
            f"ONNX has no operator for {cell}; export.stablehlo has no such limit"
        )


def operator(cell: Cell, directions: int) -> tuple[str, dict[str, Any]]:
    """Returns the operator's name and its attributes."""
    activations, attributes = _own_attributes(cell)
    attributes |= {"hidden_size": cell.hidden, "activations": activations * directions}
    attributes |= {"direction": "bidirectional" if directions == 2 else "forward"}
    if affine := directions * activations.count("Affine"):  # the identity: 1 x + 0
        attributes |= {"activation_alpha": [1.0] * affine, "activation_beta": [0.0] * affine}
    return "LSTM" if isinstance(cell, PeepholeLSTM) else kind(cell), attributes


def weights(cell: Cell, directions: tuple[CellParams, ...]) -> dict[str, np.ndarray]:
    """Returns the operator's tensors W, R, B and, with peepholes, P, by name."""
    each = [_weights(cell, params) for params in directions]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _own_attributes(cell: Cell) -> tuple[list[str], dict[str, Any]]:
    """Returns the activations of one direction, and other attributes."""
    if isinstance(cell, RNN):
        return [ACTIVATIONS[cell.activation]], {}
    if isinstance(cell, GRU):
        return ["Sigmoid", "Tanh"], {"linear_before_reset": 1}
    if isinstance(cell, PeepholeLSTM):
        own = [ACTIVATIONS[a] for a in (cell.input_activation, cell.output_activation)]
        return ["Sigmoid", *own], {"input_forget": int(cell.forget_gate == "coupled")}
    return ["Sigmoid", "Tanh", "Tanh"], {}


def _weights(cell: Cell, params: CellParams) -> dict[str, np.ndarray]:
    params, peepholes = _single(params), {}
    if isinstance(cell, PeepholeLSTM):
        if cell.peepholes:
            peepholes = {"P": _peepholes(cell, params)}
        cell, params = LSTM(cell.hidden), _four_gates(cell, params)
    name = kind(cell)
    tensors = write(f"onnx.{name}", ONNX[name], cell, params)
    tensors["B"] = np.concatenate([tensors.pop("Wb"), tensors.pop("Rb")])
    return tensors | peepholes


def _single(params: CellParams) -> CellParams:
    """Returns `params` as float32, with one recurrent matrix."""
    w_h = params.w_h
    if isinstance(w_h, tuple):
        w_h = np.asarray(w_h[0], np.float64) @ np.asarray(w_h[1], np.float64)
    w_x, w_h, b = (np.asarray(a, np.float32) for a in (params.w_x, w_h, params.b))
    return CellParams(w_x, w_h, b, params.theta)  # pyright: ignore


def _four_gates(cell: PeepholeLSTM, params: CellParams) -> CellParams:
    """Returns the parameters of an LSTM, whose gates are one where `cell` has none."""

    def packed(part: str) -> Any:
        own = split(cell, cell.gates, getattr(params, part))
        absent = np.full_like(own["g"], OPEN if part == "b" else 0)
        return np.concatenate([own.get(name, absent) for name in LSTM.gates], axis=-1)

    return CellParams(packed("w_x"), packed("w_h"), packed("b"), ())


def _peepholes(cell: PeepholeLSTM, params: CellParams) -> np.ndarray:
    zeros = np.zeros(cell.hidden, np.float32)
    each = [getattr(params.theta, f"p_{name}", zeros) for name in ("i", "o", "f")]
    return np.concatenate([np.asarray(p, np.float32) for p in each])
