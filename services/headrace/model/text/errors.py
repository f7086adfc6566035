"""What can be wrong with a text encoder."""


class TextEncoderError(ValueError):
    """There is no such text encoder here; the message says what is missing or wrong."""
