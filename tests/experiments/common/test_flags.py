"""Flags: what a command line may say; the rest is refused by flag, value and what is right."""

import dataclasses
import re

import pytest

from experiments.common import flags
from experiments.common.flags import Config, setting
from lstm_jax.engines import ENGINES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Config):
    lags: tuple[int, ...] = setting((10, 30), "steps to remember")
    rates: tuple[float, ...] = setting((1e-3,), "the grid")
    share: float = setting(0.5, "of all", (0, 1))


SCALES = {"quick": Toy(steps=5), "small": Toy(), "paper": Toy(lags=(10, 1000))}


def parse(line: str) -> flags.Request:
    return flags.parse(["toy", *line.split()], Toy)


def test_flags_are_read_into_the_types_of_their_fields():
    request = parse("--lags=3,4 --rates 1e-2,1 --engine=scan --steps=7 --resume=somewhere")
    assert request.given == {"lags": (3, 4), "rates": (0.01, 1.0), "engine": "scan", "steps": 7}
    assert (request.scale, request.resume, request.workdir) == (None, "somewhere", None)
    assert parse("--quick").scale == parse("--scale=quick").scale == "quick"
    assert parse("--help").help and not parse("").help


def test_which_of_several_processes_it_is_is_no_part_of_the_config():
    told = parse("--coordinator=10.0.0.1:1234 --processes=2 --process=0")
    assert told.hosts == ("10.0.0.1:1234", 2, 0) and told.given == {}
    assert parse("--distributed").hosts == (None, None, None) and parse("").hosts is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lags=3,b", "--lags=3,b: need whole numbers separated by commas"),
        ("--lags=", "--lags=: need whole numbers separated by commas"),
        ("--rates=x", "--rates=x: need numbers separated by commas"),
        ("--steps=1.5", "--steps=1.5: need a whole number"),
        ("--stepz=1", "Unknown command line flag 'stepz'. Did you mean: steps ?"),
        ("--out=runs/toy", "--out=runs/toy: no such flag, need --workdir"),
        ("--lr=0.1", "Unknown command line flag 'lr'"),
        ("--scale=big", "--scale=big: value should be one of <quick|small|paper>"),
        ("--quick --scale=paper", "--scale=paper: need quick, or no --quick"),
        ("--resume=a --workdir=b", "--workdir=b: leave it out, to resume in a"),
        ("--workdir=", "--workdir=: need a directory"),
        ("--resume=", "--resume=: need a directory"),
        ("--processes=2", "--processes=2: need --coordinator, --processes and --process together"),
        (
            "--distributed --process=0",
            "--process=0: leave it out, --distributed detects it",
        ),
        (
            "--coordinator=a --processes=2 --process=0",
            "--coordinator=a: need host:port, with a port of 1 to 65535",
        ),
        (
            "--coordinator=a:99999 --processes=2 --process=0",
            "--coordinator=a:99999: need host:port, with a port of 1 to 65535",
        ),
        ("--coordinator=a:1 --processes=0 --process=0", "--processes=0: need 1 to 10000"),
        ("--coordinator=a:1 --processes=2 --process=2", "--process=2: need 0 to 1"),
        ("--coordinator=a:1 --processes=x --process=2", "--processes=x: need a whole number"),
        ("lags", "lags: need flags only, as --name=value"),
    ],
)
def test_a_bad_line_is_refused_by_name(line, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(line)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 1}, "--seeds=1: need 2 to 10000"),
        ({"seed": -1}, "--seed=-1: need 0 to 4294967295"),
        ({"seed": 2**32}, "--seed=4294967296: need 0 to 4294967295"),
        ({"steps": 0}, "--steps=0: need 1 to 2147483647"),
        ({"hidden": -3}, "--hidden=-3: need 1 to 1000000"),
        ({"seeds": 10**9}, "--seeds=1000000000: need 2 to 10000"),
        ({"steps": 2**31}, "--steps=2147483648: need 1 to 2147483647"),
        ({"lags": (3, 10**12)}, "--lags=1000000000000: need 1 to 1000000"),
        ({"rates": (1e-3, float("nan"))}, "--rates=nan: need 1e-30 to 1e+30"),
        ({"rates": (1e39,)}, "--rates=1e+39: need 1e-30 to 1e+30"),
        ({"share": 2.0}, "--share=2: need 0 to 1"),
        ({"engine": "fast"}, f"--engine=fast: need one of {', '.join(ENGINES)}"),
        ({"platform": "cuda"}, "--platform=cuda: need one of auto, cpu, gpu, tpu"),
        ({"batching": "all"}, "--batching=all: need one of auto, vmap, map"),
        ({"lags": ()}, "--lags=: need at least one"),
        ({"lags": (3, 3)}, "--lags=3,3: need each of them once"),
    ],
)
def test_a_bad_value_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Toy(**given)


def test_usage_tells_every_flag_and_its_value_at_each_scale():
    lines = flags.usage(SCALES).splitlines()
    assert (
        "  --steps: updates of a trial (quick 5, small 1000, paper 1000; 1 to 2147483647)" in lines
    )
    assert "  --rates: the grid (0.001; 1e-30 to 1e+30)" in lines
    told = {line.split(":")[0].split("=")[0].strip(" -") for line in lines}
    fields = {field.name for field in dataclasses.fields(Toy)}
    assert told == fields | {"scale", "quick", "workdir", "resume", "distributed", "coordinator"}
