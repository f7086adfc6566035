"""A rollout's verdict by HTTP, in the forms that Argo's `web` metric and Flagger's webhooks ask for."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from sqlalchemy.exc import OperationalError

from headrace.runtime.errors import NotFoundError
from headrace.trainer.registry import name_of
from headrace.trainer.rollouts.desk import Desk
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout

log = logging.getLogger(__name__)

PASS, FAIL, OPEN, INCONCLUSIVE = "pass", "fail", "open", "inconclusive"
_VERDICTS = {
    Phase.PROMOTED: PASS,
    Phase.ROLLING_BACK: FAIL,
    Phase.ROLLED_BACK: FAIL,
    Phase.SUPERSEDED: FAIL,
    Phase.INCONCLUSIVE: INCONCLUSIVE,
}
# the one that runs, or the newest
_CURRENT = "current"
_PATH = re.compile(r"/v1/rollouts/([a-z0-9-]{1,40})/(verdict|confirmation)")
_BODY_LIMIT = 1 << 20
_TIMEOUT_S = 10.0


def verdict_of(rollout: Rollout) -> dict[str, Any]:
    """`verdict`: pass, fail, open or inconclusive; the rest says why."""
    return {
        "rollout": rollout.name,
        "release": name_of(rollout.release),
        "phase": rollout.phase.value,
        "verdict": _VERDICTS.get(rollout.phase, OPEN),
        "reason": rollout.reason,
        "share_bp": rollout.share_bp,
        "version": rollout.version,
        "gates": [{"gate": gate.gate, "passed": gate.passed, "reason": gate.reason} for gate in rollout.gates],
        "comparisons": [asdict(each) for each in rollout.comparisons],
    }


@contextmanager
def verdicts_served(desk: Desk, host: str, port: int) -> Iterator[int]:
    """Serves verdicts while open; the port. OSError: it is taken."""
    server = ThreadingHTTPServer((host, port), _handler(desk))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="verdicts", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            """The verdict, whatever it is."""
            if (found := self._found()) is not None:
                self._answer(HTTPStatus.OK, verdict_of(found[0]))

        def do_POST(self) -> None:
            """200 lets a Flagger analysis go on: at `verdict` unless it failed, at `confirmation` once it passed."""
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _BODY_LIMIT:
                self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"at most {_BODY_LIMIT} bytes"})
                return
            self.rfile.read(int(length))
            if (found := self._found()) is None:
                return
            rollout, asked = found
            said = verdict_of(rollout)
            goes_on = said["verdict"] == PASS if asked == "confirmation" else said["verdict"] != FAIL
            self._answer(HTTPStatus.OK if goes_on else HTTPStatus.CONFLICT, said)

        def _found(self) -> tuple[Rollout, str] | None:
            match = _PATH.fullmatch(self.path.partition("?")[0])
            if match is None:
                self._answer(HTTPStatus.NOT_FOUND, {"error": "paths are /v1/rollouts/NAME/verdict and …/confirmation"})
                return None
            name = "" if match[1] == _CURRENT else match[1]
            try:
                return desk.found(name), match[2]
            except NotFoundError as error:
                self._answer(HTTPStatus.NOT_FOUND, {"error": str(error)})
            except OperationalError as error:
                log.warning("verdict_not_read", extra={"reason": str(error.orig)})
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the registry's database is away"})
            return None

        def _answer(self, status: HTTPStatus, said: dict[str, Any]) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: it is asked every few seconds."""

    return Handler
