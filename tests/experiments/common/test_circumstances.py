"""What is told of the machine: it is there, and what changed since is named."""

import jax
import pytest

from experiments.common import circumstances, networks
from lstm_jax import tasks

MODEL = networks.network("rnn", tasks.Recall(lag=2), 3, "reference")


def test_versions_devices_and_engines_are_told():
    now = circumstances.circumstances(["toy", "--quick"], {"group": MODEL})
    assert now["command"] == "toy --quick"
    assert now["versions"]["jax"] == jax.__version__
    assert (now["platform"], now["devices"]) == ("cpu", ["cpu"] * jax.device_count())
    assert now["engines"] == {"group": "Reference(forward=False)"}


def test_only_what_changed_is_named():
    now = circumstances.circumstances(["toy"], {})
    assert list(circumstances.changes(now, now)) == []
    was = {**now, "python": "2.7", "command": "another"}
    assert list(circumstances.changes(was, now)) == [f"python was 2.7, is {now['python']}"]


@pytest.mark.parametrize("there", [True, False])
def test_a_source_that_is_no_checkout_has_no_revision(there, tmp_path, monkeypatch):
    monkeypatch.setattr(circumstances, "ROOT", tmp_path / ("" if there else "nowhere"))
    now = circumstances.circumstances(["toy"], {})
    assert now["revision"] is None and not now["uncommitted changes"]
