"""The files of a pre-trained encoder: whole, and the right ones, or a message that says what is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from headrace.model.text import weights
from headrace.model.text.encoder import EncoderName, no_encoder
from headrace.model.text.errors import TextEncoderError
from headrace.model.text.minilm import MiniLmEncoder
from headrace.model.text.pretrained import Pretrained
from headrace.model.text.weights import UPSTREAM_SHA256, read_files

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 9,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def _folder(folder: Path, weights: bytes = b"weights", config: dict[str, object] = CONFIG) -> str:
    """Writes the three files; the digest of the weights."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return hashlib.sha256(weights).hexdigest()


def test_a_folder_that_is_not_there_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(TextEncoderError, match=r"nowhere lacks config\.json, tokenizer\.json, model\.safetensors"):
        read_files(tmp_path / "nowhere", UPSTREAM_SHA256)


def test_only_the_missing_file_is_named(tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TextEncoderError, match=r"lacks tokenizer\.json$"):
        read_files(tmp_path, UPSTREAM_SHA256)


def test_other_weights_are_refused_with_the_file_and_both_digests(tmp_path: Path) -> None:
    found = _folder(tmp_path)
    with pytest.raises(TextEncoderError) as refused:
        Pretrained(tmp_path).encoder()
    for said in (str(tmp_path / "model.safetensors"), found, UPSTREAM_SHA256):
        assert said in str(refused.value)


def test_a_package_with_other_weights_is_refused_whatever_digest_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _folder(tmp_path)
    monkeypatch.setattr("headrace.model.text.pretrained.packaged_folder", lambda: tmp_path)
    with pytest.raises(TextEncoderError, match=f"SHA-256 is {found}, expected {UPSTREAM_SHA256}"):
        Pretrained(None, found).encoder()


def test_a_package_that_is_not_installed_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PACKAGE", "no_such_package")
    with pytest.raises(TextEncoderError, match=r"text_folder.*extra `text`"):
        Pretrained().encoder()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG | {"model_type": "gpt2"}, "model_type is 'gpt2', this code knows 'bert'"),
        ({"model_type": "bert", "hidden_act": "gelu"}, "vocab_size"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path: Path, config: dict[str, object], said: str) -> None:
    digest = _folder(tmp_path, config=config)
    with pytest.raises(TextEncoderError, match=rf"config\.json.*{said}"):
        Pretrained(tmp_path, digest).encoder()


@pytest.mark.parametrize("data", [b"nonsense", save({})])
def test_weights_that_do_not_fill_the_network_are_refused(tmp_path: Path, data: bytes) -> None:
    digest = _folder(tmp_path, data)
    with pytest.raises(TextEncoderError, match=r"model\.safetensors"):
        Pretrained(tmp_path, digest).encoder()


def test_another_name_than_that_of_the_files_is_refused_without_opening_them(tmp_path: Path) -> None:
    wanted = EncoderName("minilm", "0" * 64)
    with pytest.raises(TextEncoderError, match=f"minilm {'0' * 64} is needed, .* {UPSTREAM_SHA256}"):
        Pretrained(tmp_path / "nowhere").find(wanted)


def test_who_has_no_encoder_says_which_is_needed() -> None:
    with pytest.raises(TextEncoderError, match="minilm 00 is needed"):
        no_encoder(EncoderName("minilm", "00"))


def test_the_packaged_encoder_is_found_by_its_name_and_opened_once(minilm: object) -> None:
    pretrained = Pretrained()
    encoder = pretrained.find(EncoderName("minilm", UPSTREAM_SHA256))
    assert encoder is pretrained.encoder()
    assert encoder.name == minilm.name
    with pytest.raises(TextEncoderError, match="maxilm"):
        pretrained.find(EncoderName("maxilm", UPSTREAM_SHA256))


@pytest.fixture(scope="module")
def exact(minilm: object) -> MiniLmEncoder:
    """The same network without rounding to 8 bits."""
    return MiniLmEncoder.of(read_files(weights.packaged_folder(), UPSTREAM_SHA256), is_int8=False)


SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


def test_likenesses_are_those_that_upstream_publishes(exact: MiniLmEncoder) -> None:
    # the example on the first page of sentence-transformers' documentation
    expected = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    vectors = exact.encode(SENTENCES)
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-4)


def test_8_bits_stay_near_the_exact_vectors(minilm: object, exact: MiniLmEncoder) -> None:
    texts = [*SENTENCES, "red ceramic mug", "garden chair set of 4"]
    assert (minilm.encode(texts) * exact.encode(texts)).sum(axis=1).min() > 0.99


def test_a_text_of_blanks_is_the_zero_vector(minilm: object) -> None:
    assert not minilm.encode([" \t\n"]).any()


def test_words_of_like_meaning_lie_near_without_sharing_a_letter(minilm: object) -> None:
    sofa, couch, lamp = minilm.encode(["sofa", "couch", "lamp"])
    assert sofa @ couch > sofa @ lamp + 0.2
