"""The `headrace` command: runs the suite, talks to it, and shows what it does."""
