"""What holds for every test: strict promotion, two devices on the CPU, slow tests on request."""

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Compiled programs are kept between runs, and shared by workers and by the processes of tests.
# Set before jax is imported, which reads it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

import hypothesis
import jax
import pytest

from tests.compiling import CHEAP

# Before any backend starts: two devices on the CPU, so that sharding is tested on every machine.
jax.config.update("jax_num_cpu_devices", 2)
# A silent change of dtype or rank is how wrong numbers pass for right ones.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes longer than any deadline for one example; CI must see the same examples each time.
hypothesis.settings.register_profile("lstm_jax", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("lstm_jax")


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Usual dtype promotion within a test: optax's Adam multiplies a float by an integer count."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 within a test, for comparison with an oracle beyond float32's rounding."""
    with jax.enable_x64(True):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked slow, too")
    parser.addoption("--stress", action="store_true", help="run the tests marked stress, too")
    parser.addoption("--optimized", action="store_true", help="compile as users have it")


def pytest_configure(config: pytest.Config) -> None:
    # Nearly all of the time goes into compiling. What is compiled with less care takes a fifth of
    # it; it is slower and may round differently, but has to pass as well.
    if not config.getoption("--optimized"):
        os.environ["XLA_FLAGS"] = f"{CHEAP} {os.environ.get('XLA_FLAGS', '')}"


def pytest_collection_finish() -> None:
    # Tracing makes many small objects: looking for cycles among them and all modules takes a tenth
    # of the time.
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


resident_once_cleared = 8e8


def pytest_runtest_teardown() -> None:
    # Programs take megabytes, few tests share any, and what is freed is kept until it is trimmed.
    global resident_once_cleared
    if resident() > resident_once_cleared + 1e9:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        resident_once_cleared = resident()


def resident() -> float:
    """The memory of this process in bytes, where the system tells."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * 4096.0 if pages.exists() else 0.0


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, option in (("slow", "--all"), ("stress", "--stress")):
        if item.get_closest_marker(marker) and not item.config.getoption(option):
            pytest.skip(f"{marker}: runs with {option}")
    for platform in ("gpu", "tpu"):
        if item.get_closest_marker(platform) and jax.default_backend() != platform:
            pytest.skip(f"needs a {platform.upper()}: jax runs on {jax.default_backend()}")
