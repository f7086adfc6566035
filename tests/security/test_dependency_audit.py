from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOUND = {"name": "grpcio", "version": "1.85.1", "vulns": []}
WEAK = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.0"]}]}
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.4)"}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([SOUND], 0, "1 of 1 packages asked about"),
        ([SOUND, WEAK], 1, "jinja2 2.0: PYSEC-1 (mended in 3.0)"),
        ([SOUND, UNKNOWN], 3, "no answer about 1: numpy"),
        ([UNKNOWN, WEAK], 1, "no answer about 1: numpy"),
        ([], 3, "no answer"),
    ],
)
def test_only_a_whole_answer_without_a_finding_passes(audit: Any, packages: list[Any], code: int, told: str) -> None:
    found, lines = audit.judged({"dependencies": packages})
    assert found == code
    assert told in "\n".join(lines)


def test_no_answer_at_all_does_not_pass_unless_it_is_allowed(
    audit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_report", lambda pins: None)
    monkeypatch.delenv("ALLOW_UNREACHABLE_ADVISORIES", raising=False)
    assert audit.main("constraints.txt") == 3
    monkeypatch.setenv("ALLOW_UNREACHABLE_ADVISORIES", "1")
    assert audit.main("constraints.txt") == 0
    assert "NOTHING IS KNOWN" in capsys.readouterr().out


def asked(
    audit: Any, pins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The audit on a machine without a way out that is allowed to have none: status, and what was said."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("ALLOW_UNREACHABLE_ADVISORIES", "1")
    code = audit.main(str(pins))
    return code, capsys.readouterr().out


def test_a_service_that_is_not_reached_is_told_apart_from_pins_that_are_none(
    audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins.txt").write_text("grpcio==1.80.0\n")
    code, told = asked(audit, tmp_path / "pins.txt", monkeypatch, capsys)
    assert (code, "could not ask its advisory service at all" in told, "NOTHING IS KNOWN" in told) == (0, True, True)
    code, told = asked(audit, tmp_path / "nowhere.txt", monkeypatch, capsys)
    assert (code, "nowhere.txt" in told, "NOTHING IS KNOWN" in told) == (2, True, False)
