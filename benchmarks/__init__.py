"""Comparisons with peers, each a command: `python -m benchmarks.optimizer`, and so on."""
