"""Checks of what `deploy/` holds: see `python -m deploy.check`."""
