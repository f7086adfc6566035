"""Forgetting a person: asking for it, checking the receipt, and looking everywhere for what is left."""
