"""Trained models as programs that run without this library: StableHLO and ONNX."""

from lstm_jax.interop.export.graphs import onnx, onnx_step
from lstm_jax.interop.export.programs import stablehlo

__all__ = ["onnx", "onnx_step", "stablehlo"]
