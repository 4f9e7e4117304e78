"""Runs, streams, evaluation and results, by name: ``python -m benchmarks``."""
