"""A run on the disk, of one process or several: ledger, checkpoints, curves, progress."""
