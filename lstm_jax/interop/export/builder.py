"""An ONNX graph, written node by node; values are called by their names."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_jax.interop.model_files import check_new

OPSET, IR_VERSION = 17, 8  # of 2022: every current runtime reads them
NONE = ""  # ONNX's name of an optional input that is left out


class Graph:
    """The nodes, inputs, outputs and constants of a model."""

    def __init__(self):
        self._onnx = _onnx()
        self._nodes, self._inputs, self._outputs, self._constants = [], [], [], []

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> str:
        """Adds an input and returns its name; a word in `shape` is a free size."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Makes `value` the output `name`."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, np.float32, shape))

    def constant(self, array: Any) -> str:
        """Adds a constant, integers as int64 and floats as float32, and returns its name."""
        array = np.asarray(array)
        dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        name = f"constant_{len(self._constants)}"
        tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array, dtype), name)
        self._constants.append(tensor)
        return name

    def nodes(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list:
        """Adds a node and returns the names of its outputs."""
        names = [f"{operator}_{len(self._nodes)}_{n}" for n in range(outputs)]
        node = self._onnx.helper.make_node(operator, inputs, names, **attributes)
        self._nodes.append(node)
        return names

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns its name."""
        return self.nodes(operator, inputs, 1, **attributes)[0]

    def cast(self, value: str, dtype: Any) -> str:
        """Adds a conversion and returns its name."""
        return self.node("Cast", value, to=self._kind(dtype))

    def write(self, file: str | os.PathLike, name: str) -> None:
        """Writes the model to a new file.

        Raises:
          FileExistsError: the file exists; it is left as it is.
        """
        check_new(file)
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=self._constants
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="lstm_jax"
        )
        self._onnx.checker.check_model(model, full_check=True)
        with open(file, "xb") as opened:
            opened.write(model.SerializeToString())

    def _value(self, name: str, dtype: Any, shape: Sequence[int | str]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._kind(dtype), list(shape))

    def _kind(self, dtype: Any) -> int:
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX files need onnx: pip install 'lstm_jax[export]'") from None
    return onnx
