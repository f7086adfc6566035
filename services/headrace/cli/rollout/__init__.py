"""`headrace rollout`: how a release comes to serve, watched and steered."""
