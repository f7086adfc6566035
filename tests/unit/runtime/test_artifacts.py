from __future__ import annotations

from pathlib import Path

import pytest

from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.runtime.errors import CorruptDataError, NotFoundError


@pytest.fixture(params=["directory", "file-url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    urls = {"directory": str(tmp_path), "file-url": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}
    return ArtifactStore(urls[request.param])


def test_what_is_written_is_read_back(store: ArtifactStore) -> None:
    checksum = store.write("releases/r-1/towers", b"weights")
    assert checksum == sha256(b"weights")
    assert store.read("releases/r-1/towers", checksum) == b"weights"
    assert store.exists("releases/r-1/towers")


def test_a_missing_object_is_not_found(store: ArtifactStore) -> None:
    assert not store.exists("nothing")
    with pytest.raises(NotFoundError, match="no artifact 'nothing'"):
        store.read("nothing")


def test_an_object_with_another_checksum_is_corrupt(store: ArtifactStore) -> None:
    store.write("a", b"one")
    with pytest.raises(CorruptDataError):
        store.read("a", sha256(b"two"))


def test_deleting_takes_an_object_or_a_folder_and_never_complains(store: ArtifactStore) -> None:
    store.write("r/a", b"1")
    store.write("r/b", b"2")
    store.delete("r/a")
    assert (store.exists("r/a"), store.exists("r/b")) == (False, True)
    store.delete("r")
    assert not store.exists("r/b")
    store.delete("r")
