"""Definitions that serving and training share, so that both compute the same thing."""
