"""Runs on disk, of one process or several: ledger, checkpoints, curves, progress."""

from lstm_jax.runs import checkpoints, hosts, loggers
from lstm_jax.runs.config import CONFIG, begin_run, read_config
from lstm_jax.runs.directory import Preempted, RunDirectory
from lstm_jax.runs.ledger import Ledger, sha256_of
from lstm_jax.runs.lock import LOCK, Lock, lock_run
from lstm_jax.runs.records import TEMPORARY, Damaged, RecordLog, replace_file

__all__ = [
    "CONFIG",
    "LOCK",
    "TEMPORARY",
    "Damaged",
    "Ledger",
    "Lock",
    "Preempted",
    "RecordLog",
    "RunDirectory",
    "begin_run",
    "checkpoints",
    "hosts",
    "lock_run",
    "loggers",
    "read_config",
    "replace_file",
    "sha256_of",
]
