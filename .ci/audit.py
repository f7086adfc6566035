"""Asks whether a pinned dependency has a known vulnerability.

0: none has; 1: one has; 2: nothing could be asked, for the pins or pip-audit itself are at fault; 3: the advisory
service was not reached, or does not know all of them. pip-audit ends with 0 also when its service knows none of the
packages, and with 1 when it cannot be reached: here that is told apart. `ALLOW_UNREACHABLE_ADVISORIES=1` makes 3 no
failure, for a machine without a way out; it is still told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

_ASK_S = 300
_SHOWN = 5
# what pip-audit says when nobody answers it; it names the exception at the end of its standard error
_UNREACHED = ("requests.exceptions.", "pip_audit._service.interface.", "urllib3.exceptions.")


class AuditError(Exception):
    """pip-audit gave no report, and it is not for want of an answer from its service."""


def main(pins: str) -> int:
    try:
        code, told = judged(_report(pins))
    except AuditError as error:
        print(f"audit: pip-audit failed: {error}")
        return 2
    print("\n".join(told))
    if code == 3 and os.environ.get("ALLOW_UNREACHABLE_ADVISORIES") == "1":
        print("audit: let pass, since ALLOW_UNREACHABLE_ADVISORIES=1. NOTHING IS KNOWN of the packages named above.")
        return 0
    return code


def judged(report: dict[str, Any] | None) -> tuple[int, list[str]]:
    """The exit status and what is said, from pip-audit's JSON; None: it gave none."""
    if report is None:
        return 3, ["audit: pip-audit could not ask its advisory service at all"]
    packages = report["dependencies"]
    found = [f"audit: {one['name']} {one['version']}: {_ids(one)}" for one in packages if one.get("vulns")]
    unasked = [one["name"] for one in packages if "skip_reason" in one]
    told = [f"audit: {len(packages) - len(unasked)} of {len(packages)} packages asked about", *found]
    if unasked or not packages:
        told.append(
            f"audit: no answer about {len(unasked)}: {', '.join(unasked[:_SHOWN])}{' …' * (len(unasked) > _SHOWN)}"
        )
    return (1 if found else 3 if unasked or not packages else 0), told


def _ids(package: dict[str, Any]) -> str:
    return ", ".join(
        f"{one['id']} (mended in {', '.join(one.get('fix_versions', ())) or 'no version'})" for one in package["vulns"]
    )


def _report(pins: str) -> dict[str, Any] | None:
    command = [sys.executable, "-m", "pip_audit", "-r", pins, "--no-deps", "--disable-pip", "-f", "json"]
    command += ["--progress-spinner", "off"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    try:
        report: dict[str, Any] = json.loads(ran.stdout)
    except ValueError:
        reason = (ran.stderr.splitlines() or ["it said nothing"])[-1]
        if not reason.startswith(_UNREACHED):
            raise AuditError(reason) from None
        print(reason, file=sys.stderr)
        return None
    return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
