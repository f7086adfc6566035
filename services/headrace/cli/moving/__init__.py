"""Backups, and the way from one backend to another: the log at its own offsets, so that every state goes on from it."""
