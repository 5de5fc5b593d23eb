"""Trials on devices: every trial has one place, the rest is idle, and f is f of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.training import parallel

ALL = parallel.everywhere()


@pytest.mark.parametrize("batching", ["map", "vmap"])
@pytest.mark.parametrize("trials", [1, 2, 3, 7, 8])
def test_spreading_and_gathering_loses_nothing(trials, batching):
    layout = parallel.Layout(trials, batching, ALL)
    rng = np.random.default_rng(0)
    tree = {"a": np.arange(trials, dtype=np.int32), "b": rng.normal(size=(trials, 2)).astype("f4")}
    spread = layout.spread(tree)
    jax.tree.map(np.testing.assert_array_equal, layout.gather(spread), tree)
    awake = np.asarray(spread["a"])[~np.asarray(layout.idle)]
    assert sorted(awake) == list(range(trials))


def test_devices_share_the_trials_that_run_evenly():
    devices = jax.device_count()
    assert devices > 1
    for trials in (5, 6, 9):
        for batching in ("map", "vmap"):
            idle = np.asarray(parallel.Layout(trials, batching, ALL).idle)
            loads = (~idle.reshape(devices, -1)).sum(1)
            assert loads.max() - loads.min() <= 1
            assert len(idle) < trials + devices or batching == "map"


def test_near_sizes_have_the_same_places_with_map():
    sizes = {len(np.asarray(parallel.Layout(trials, "map", ALL).idle)) for trials in (10, 12, 16)}
    assert sizes == {16}


def test_over_trials_applies_the_function_to_each_trial_on_its_device():
    def one(tree, shared):
        return jax.lax.dot(tree["m"], tree["v"]) + shared

    rng = np.random.default_rng(1)
    tree = {"m": rng.normal(size=(5, 3, 4)), "v": rng.normal(size=(5, 4))}
    tree = jax.tree.map(lambda leaf: leaf.astype(np.float32), tree)
    wanted = np.einsum("rij,rj->ri", tree["m"], tree["v"]) + 2
    for batching in ("map", "vmap"):
        layout = parallel.Layout(5, batching, ALL)
        spread = parallel.over_trials(one, batching, ALL)(layout.spread(tree), jnp.float32(2))
        assert len(spread.sharding.device_set) == jax.device_count()
        np.testing.assert_allclose(layout.gather(spread), wanted, rtol=1e-5)


def test_a_batch_is_shared_by_as_many_devices_as_divide_it():
    """Where trials are fewer than devices; all devices stay in use, and with map each is alone."""
    assert [parallel.sharing(12, 1, b) for b in (24, 16, 6, 5)] == [12, 4, 6, 1]
    assert [parallel.sharing(12, r, 24) for r in (2, 5, 7, 12, 13)] == [6, 2, 1, 1, 1]
    assert [parallel.sharing(12, 1, b, least=4) for b in (48, 24, 16, 6)] == [12, 6, 4, 1]
    assert parallel.sharers(parallel.shared(ALL, 1, 16, "vmap")) == jax.device_count()
    assert parallel.shared(ALL, 1, 16, "map") == parallel.shared(ALL, 2, 16, "vmap") == ALL


def test_auto_is_map_on_a_cpu_and_vmap_elsewhere():
    assert parallel.resolve("auto", ALL) == ("map" if jax.default_backend() == "cpu" else "vmap")
    assert parallel.resolve("vmap", ALL) == "vmap"
    with pytest.raises(ValueError, match="batching must be one of auto, vmap, map, got 'loop'"):
        parallel.resolve("loop", ALL)
