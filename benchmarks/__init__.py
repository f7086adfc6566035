"""One file a question: `python -m benchmarks.NAME [--quick] [--seed N] --json PATH`."""
