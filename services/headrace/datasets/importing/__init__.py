"""Anybody's files as events, products and dated facts, by a mapping file."""
