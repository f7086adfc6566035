"""Text as vectors: frozen encoders behind one Protocol, so that a text's vector never changes within a space."""
