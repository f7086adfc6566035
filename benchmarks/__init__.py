"""One file a question: `python -m benchmarks.NAME [--quick] [--seed N] --json PATH`."""

import os

# uvloop starts processes by fork, in which gRPC's handlers end the child now and then while other threads are at work
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
