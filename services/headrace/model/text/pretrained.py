"""The pre-trained encoder of a process: opened when it is first asked for, from a folder or the package."""

from __future__ import annotations

import threading
from pathlib import Path

from headrace.model.text.cache import CachedEncoder
from headrace.model.text.encoder import EncoderName, TextEncoder
from headrace.model.text.errors import TextEncoderError
from headrace.model.text.weights import UPSTREAM_SHA256, packaged_folder, read_files


class Pretrained:
    """`Pretrained().encoder()` is the packaged encoder, `Pretrained(folder, digest)` is for weights of one's own."""

    def __init__(self, folder: Path | None = None, digest: str = UPSTREAM_SHA256) -> None:
        self._folder = folder
        # the package is only ever taken for what it says that it is
        self._digest = digest if folder is not None else UPSTREAM_SHA256
        self._opening = threading.Lock()
        self._opened: TextEncoder | None = None

    def encoder(self) -> TextEncoder:
        """The encoder with its cache. TextEncoderError: files are missing, or not what they should be."""
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def find(self, name: EncoderName) -> TextEncoder:
        """The encoder of that name. TextEncoderError: it is another one, or cannot be opened."""
        if name.digest != self._digest:
            raise TextEncoderError(f"the text encoder {name} is needed, the one here has digest {self._digest}")
        encoder = self.encoder()
        if encoder.name != name:
            raise TextEncoderError(f"the text encoder {name} is needed, the one here is {encoder.name}")
        return encoder

    def _open(self) -> TextEncoder:
        # torch is loaded only where it is needed
        from headrace.model.text.minilm import MiniLmEncoder

        files = read_files(self._folder if self._folder is not None else packaged_folder(), self._digest)
        return CachedEncoder(MiniLmEncoder.of(files))
