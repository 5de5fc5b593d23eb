"""Tensors in files: trees come back bit for bit; files that are cut or of another tree do not."""

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lstm_jax import interop
from tests.cells_under_test import Peephole
from tests.interop.weights import (
    LSTM,
    H,
    assert_same,
    params_of,
    torch_tensors,
)


def tree() -> Any:
    theta = Peephole(H).Theta({"p_i": jnp.ones((), jnp.bfloat16), "p_f": jnp.zeros((0, 3))})
    return {"one": params_of(LSTM, projected=True)._replace(theta=theta), "two": [jnp.arange(3)]}


def test_a_tree_comes_back_from_a_file_as_it_was(tmp_path: Path) -> None:
    interop.save_tensors(tmp_path / "a", tree())
    assert_same(interop.load_tree(tmp_path / "a", jax.eval_shape(tree)), tree())
    found = interop.load_tensors(tmp_path / "a")
    names = {"one.w_x", "one.w_h.0", "one.w_h.1", "one.b", "one.theta.p_i", "one.theta.p_f"}
    assert found.keys() == names | {"two.0"}
    assert found["one.theta.p_i"].shape == () and found["one.theta.p_i"].dtype == jnp.bfloat16
    with pytest.raises(FileExistsError):
        interop.save_tensors(tmp_path / "a", tree())
    torch = torch_tensors()
    interop.save_tensors(tmp_path / "b", torch)
    assert_same(interop.load_tensors(tmp_path / "b"), torch)


def test_a_file_cut_anywhere_is_refused_with_the_tensor_that_is_lost(tmp_path: Path) -> None:
    interop.save_tensors(tmp_path / "whole", tree())
    content = (tmp_path / "whole").read_bytes()
    template = jax.eval_shape(tree)
    assert len(content) > 700
    for length in [*range(0, len(content), 37), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut: .*tensor '(one|two)\.\S+' "):
            interop.load_tree(tmp_path / "cut", template)
        with pytest.raises(ValueError, match="cut short"):
            interop.load_tensors(tmp_path / "cut")


def test_a_file_of_another_tree_is_refused(tmp_path: Path) -> None:
    path, template = tmp_path / "a", {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    interop.save_tensors(path, template)
    for other, message in [
        (template | {"c": jnp.ones(3)}, "'c' is missing"),
        ({"w": template["w"]}, "'b' is unexpected"),
        (template | {"w": jnp.ones((3, 2))}, r"'w' must be \(3, 2\), got \(2, 3\)"),
        (template | {"b": jnp.ones(3, jnp.float16)}, "'b' must be float16, got float32"),
    ]:
        with pytest.raises(ValueError, match=f"a: tensor {message}"):
            interop.load_tree(path, other)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="no safetensors file"):
        interop.load_tensors(tmp_path / "a")
