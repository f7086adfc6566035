"""Headrace: e-commerce search and recommendation that learns while it serves."""

__version__ = "0.1.0"
