"""Rollouts: how a release comes to serve everybody, and how it goes again."""
