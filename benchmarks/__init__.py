"""Speed tables: `python -m benchmarks`, and `--only` for one of them."""
