"""What is fast, measured: `python -m benchmarks`, or one of its modules by itself."""
