"""Shared machinery of the experiments: flags, plans, the runner and the report."""
