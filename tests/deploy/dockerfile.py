"""Carries out a Dockerfile's steps in plain folders: there may be no container engine where tests run.

Known are ARG, FROM, RUN, COPY, ENV, WORKDIR, USER, LABEL and ENTRYPOINT as deploy/Dockerfile uses them. Folders of
the image lie below a root folder; what RUN steps and ENTRYPOINT say of `/opt/…` is said of that. The base image is
this machine, so steps that install Debian's packages into it are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_IMAGE_FOLDER = "/opt/"


@dataclass(frozen=True)
class Step:
    """One instruction."""

    name: str
    text: str


@dataclass
class Stage:
    """The instructions from one FROM to the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def of(self, *names: str) -> list[str]:
        return [step.text for step in self.steps if step.name in names]


def stages(dockerfile: Path) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    found: list[Stage] = []
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            found.append(Stage(base, stage))
        elif found:
            found[-1].steps.append(Step(name, rest))
    return found


def build(stage: Stage, context: Path, root: Path, arguments: Mapping[str, str]) -> None:
    """Carries out a stage that is built from `context`. CalledProcessError: a step failed."""
    folder, environment = root, dict(os.environ)
    for step in stage.steps:
        match step.name:
            case "ARG":
                name, _, default = step.text.partition("=")
                environment[name] = arguments.get(name, default)
            case "WORKDIR":
                folder = root / step.text.lstrip("/")
                folder.mkdir(parents=True)
            case "COPY":
                *sources, target = step.text.split()
                _copy(context, sources, folder / target)
            case "RUN" if "apt-get" not in step.text:
                subprocess.run(["sh", "-euc", _placed(step.text, root)], cwd=folder, env=environment, check=True)


def entrypoint(stage: Stage, root: Path) -> list[str]:
    """The command that a container of this stage runs."""
    [text] = stage.of("ENTRYPOINT")
    return [_placed(part, root) for part in json.loads(text)]


def _copy(context: Path, sources: list[str], target: Path) -> None:
    for source in sources:
        path = context / source
        if path.is_dir():
            # as Dockerfile.dockerignore says
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
            shutil.copytree(path, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(path, target)


def _placed(text: str, root: Path) -> str:
    return text.replace(_IMAGE_FOLDER, f"{root}{_IMAGE_FOLDER}")
