"""A person's ids are found in every form that a store writes, and other people's are not taken for theirs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from headrace.cli.forgetting.traces_in_bytes import files_with, forms_of
from headrace.feature_store.columns import packed
from headrace.trainer.arrays import packed_json
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.log_pb2 import Impression, LoggedUserEvent


def count(folder: Path, data: bytes, user_id: str, visitor_id: str = "") -> int:
    file = folder / "file"
    file.write_bytes(data)
    return sum(found for _, found in files_with(forms_of(user_id, visitor_id), [file]))


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


FORMS = {
    "an event": UserEvent(user_id="12", visitor_id="x").SerializeToString(),
    "a logged event": b"\0" + LoggedUserEvent(event=UserEvent(visitor_id="x"), user_key="u:12").SerializeToString(),
    "an impression": Impression(user_key="u:12", release="r").SerializeToString(),
    "the last of packed keys": npz(**packed("users.keys", [b"u:99", b"u:12"])),
    "packed keys": npz(**packed("users.keys", [b"u:12", b"v:12"])),
    "json": json.dumps({"user_key": "u:12"}).encode(),
    "a checkpoint": packed_json(["u:1", "u:12"]).tobytes(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_short_id_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    assert count(tmp_path, FORMS[form], "12") > 0


@pytest.mark.parametrize(
    "data",
    [
        UserEvent(user_id="123", visitor_id="12").SerializeToString(),
        LoggedUserEvent(user_key="u:123").SerializeToString(),
        npz(**packed("users.keys", [b"u:123", b"v:12", b"u:1"])),
        b'{"price": 12, "product": "12"}',
        b"",
    ],
)
def test_another_persons_longer_id_is_not_taken_for_a_short_one(tmp_path: Path, data: bytes) -> None:
    assert count(tmp_path, data, "12") == 0


def test_a_long_id_is_found_wherever_it_stands_alone(tmp_path: Path) -> None:
    assert count(tmp_path, b"said ann-smith, too", "ann-smith") == 1
    assert count(tmp_path, b"said joann-smith and ann-smithers", "ann-smith") == 0


def test_a_device_is_found_too(tmp_path: Path) -> None:
    assert count(tmp_path, UserEvent(user_id="u", visitor_id="7f").SerializeToString(), "", "7f") == 1
