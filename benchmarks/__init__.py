"""What is fast, measured: `python -m benchmarks`, and `--only` for one of its tables."""
