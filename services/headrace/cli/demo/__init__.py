"""The demo: the whole suite on one machine, a shop streamed through it, and what it learned shown."""
