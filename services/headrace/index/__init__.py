"""The nearest vectors in each live embedding space: exact, mutable, sequence-numbered."""
