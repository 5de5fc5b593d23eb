"""Predictions of a file equal those of the loaded model; refusals are one sentence."""

from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import lstm_jax as lj
from experiments import predict
from experiments.common import runner

pytestmark = pytest.mark.usefixtures("standard_promotion")

NAMES = ("b", "a", "c", "d")
KINDS = {
    "Classification": lj.tasks.Classification,
    "Regression": lj.tasks.Regression,
    "Quantiles": lambda data: lj.tasks.Regression(data, head=lj.tasks.heads.Quantiles()),
}


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(n, t, *rng.normal(size=2), len(n) + i) for i, n in enumerate(NAMES) for t in range(5)]
    return pd.DataFrame(rows, columns=["id", "t", "u", "v", "y"])


def saved(path: Path, kind: str) -> lj.Predictor:
    """An untrained model of the columns v and u, in this order."""
    table = frame()
    if kind == "Classification":
        table["y"] = np.where(table["id"].isin(["b", "c"]), "x", "y")
    data = lj.data.Sequences.from_frame(table, id="id", time="t", features=["v", "u"], target="y")
    task = KINDS[kind](data.split(0.0, 0.0))
    model = lj.nn.SequenceSpec(lj.cells.RNN(2)).sized(task)
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    predictor = lj.Predictor(task, model, params, lj.make_trials(seed=[0, 1]))
    predictor.save(path)
    return predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    frame().to_csv(folder / "new.csv", index=False)
    frame().drop(columns="u").to_csv(folder / "less.csv", index=False)
    for kind in KINDS:
        saved(folder / kind, kind)
    return folder


@pytest.fixture(autouse=True)
def started(monkeypatch, folder):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.chdir(folder)


def run(*arguments: str) -> int:
    return predict.main(["predict", *arguments])


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
@pytest.mark.parametrize("kind", ["Classification", "Regression"])
def test_predictions_are_those_of_the_loaded_model_with_the_ids(kind, suffix, folder):
    out = f"{kind}.{suffix}"
    more = ["--probabilities"] if kind == "Classification" else []
    assert (
        run(f"--model={kind}", "--data=new.csv", "--id=id", "--time=t", f"--out={out}", *more) == 0
    )
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "npz": lambda f: dict(np.load(f))}
    found = read[suffix](folder / out)
    model = lj.load(folder / kind)
    data = lj.data.read(folder / "new.csv", id="id", time="t", features=["v", "u"])
    assert list(found["id"]) == list(NAMES)
    wanted = model.predict(data)
    assert np.array_equal(np.asarray(found["prediction"]).astype(wanted.dtype), wanted)
    if kind == "Classification":
        p = np.stack([found["p_x"], found["p_y"]], axis=-1).astype(np.float32)
        np.testing.assert_array_equal(p, model.predict(data, probabilities=True))


NEW = "--model=Regression --data=new.csv --id=id"
BAD = [
    ("", "--model", "need a directory"),
    ("--model=none --data=new.csv --out=o.csv", "--model=none", "task.json"),
    ("--model=. --data=new.csv --out=o.csv", "--model=.",
     "must hold a saved predictor (task.json), got '.'; there is one in "),
    ("--model=Regression --data=less.csv --id=id --out=o.csv", "--data=less.csv",
     "it has no column 'u', as the training had for features, but id, t, v, y"),
    ("--model=Regression --data=none.csv --out=o.csv", "--data=none.csv", "must be a file"),
    ("--model=Regression --data=new.csv --out=o.csv", "--id", "one of id, t, u, v, y"),
    (f"{NEW}", "--out", "need a file"),
    (f"{NEW} --out=o.txt", "--out=o.txt", "ends in .csv or .npz or .parquet"),
    (f"{NEW} --out=new.csv", "--out=new.csv", "it exists"),
    (f"{NEW} --out=nowhere/o.csv", "--out=nowhere/o.csv", "nowhere is no directory"),
    (f"{NEW} --out=o.csv --features=u", "--features=u", "features must be v, u in this order"),
    (f"{NEW} --out=o.csv --features=v,y", "--features=v,y", "features must be v, u in this order"),
    ("--model=Quantiles --data=new.csv --id=id --out=o.csv --levels=0.05", "--levels=0.05",
     "levels must lie in [0.1, 0.9], got (0.05,)"),
    (f"{NEW} --out=o.csv --features=u,w", "--features=w", "no such column"),
    (f"{NEW} --out=o.csv --probabilities", "--probabilities", "predicts no classes"),
    (f"{NEW} --out=o.csv --levels=0.1,0.9", "--levels=0.1,0.9", "predicts no quantiles"),
    (f"{NEW} --out=o.csv --levels=2", "--levels=2", "need 0.001 to 0.999"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "named", "words"), BAD, ids=[line for line, *_ in BAD])
def test_bad_input_is_refused_in_one_sentence(line, named, words, folder, capsys):
    before = set(folder.iterdir())
    assert run(*line.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"predict: {named}") and err.count("\n") == 1
    assert words in err, err
    assert set(folder.iterdir()) == before
