"""Nothing that is read can run code: weights and checkpoints are safetensors, and nothing else would read a pickle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
# what reads a pickle, or may, by the last part of its name and the module that it is called through
_CALLS = {("torch", "load"), ("torch", "save"), ("torch.jit", "load"), ("pd", "read_pickle"), ("pandas", "read_pickle")}
_WORDS = ("torch", "pickle", *_MODULES)


def _sources() -> list[Path]:
    folders = ("services", "benchmarks", ".ci", "deploy")
    return sorted(path for folder in folders for path in (_ROOT / folder).rglob("*.py"))


def _faults(source: str) -> Iterator[str]:
    # most sources name nothing that a fault could be made of: they need no parsing
    if not any(word in source for word in _WORDS):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {name.name}" for name in node.names if name.name.split(".")[0] in _MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from _faults_of_import(node)
        elif isinstance(node, ast.Call):
            yield from _faults_of_call(node)


def _faults_of_import(node: ast.ImportFrom) -> Iterator[str]:
    module = node.module or ""
    if module.split(".")[0] in _MODULES:
        yield f"imports from {module}"
    yield from (f"imports {module}.{name.name}" for name in node.names if (module, name.name) in _CALLS)


def _faults_of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    module, _, name = called.rpartition(".")
    if (module, name) in _CALLS:
        yield f"calls {called}"
    if called in {"__import__", "importlib.import_module"} and node.args:
        asked = node.args[0]
        if isinstance(asked, ast.Constant) and str(asked.value).split(".")[0] in _MODULES:
            yield f"calls {called} of {asked.value}"
    for keyword in node.keywords:
        is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg == "allow_pickle" and not is_off:
            yield f"calls {called} with allow_pickle"


def test_no_source_reads_or_writes_pickles() -> None:
    sources = _sources()
    assert len(sources) > 200
    found = {str(path.relative_to(_ROOT)): list(_faults(path.read_text())) for path in sources}
    assert {path: faults for path, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, joblib.numpy_pickle",
        "from pickle import loads",
        "from torch import load",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=chosen)",
        "__import__('pickle')",
        "importlib.import_module('dill')",
    ],
)
def test_each_way_to_a_pickle_is_found(source: str) -> None:
    assert list(_faults(source))


def test_a_checkpoint_is_safetensors(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load

    from headrace.trainer.checkpoint import Checkpoints

    Checkpoints(tmp_path).save(7, {"form": {}}, {"a": np.arange(3)})
    [path] = tmp_path.rglob("*.safetensors")
    assert load(path.read_bytes())["a"].tolist() == [0, 1, 2]
    # 0x80 begins every pickle since its second protocol
    assert all(file.read_bytes()[:1] != b"\x80" for file in tmp_path.rglob("*") if file.is_file())
