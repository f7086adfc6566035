"""`headrace doctor`: whether this machine and its backends can carry a suite, and what to do where they cannot."""
