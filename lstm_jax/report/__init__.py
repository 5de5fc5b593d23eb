"""Telling: statistics, tables, figures and pages made from records alone, without jax."""
