"""The models: learned from the log while it grows, published as deltas within seconds and as releases."""
