"""What any Headrace process needs to run, and nothing of the shop."""
