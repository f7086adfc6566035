"""Which kind of segment serves here, and why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from headrace.index.flat_segment import FlatSegment
from headrace.index.segment import Segment
from headrace.index.self_check import DIMENSION, check_segment
from headrace.runtime.settings import SettingsError

# of the driver, and of the Windows Subsystem for Linux
_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))

# no faster than Faiss
_SLOW = "portable"

Device = Literal["auto", "cpu", "gpu"]
Kind = Literal["auto", "flat", "compact", "cells"]


@dataclass(frozen=True)
class SegmentMaker:
    """Makes the segments of this process; `close` ends what they share.

    Searches of no more than `at_once` rows are too short to be handed to a thread.
    """

    make: Callable[[int], Segment]
    reason: str
    close: Callable[[], None] = lambda: None
    at_once: int = 100_000


@dataclass(frozen=True)
class InMemory:
    """What is set of segments in main memory; `cells_from` and `recall_goal` are for kinds auto and cells."""

    kind: Kind = "auto"
    cells_from: int = 250_000
    recall_goal: float = 0.97


def segment_maker(device: Device, in_memory: InMemory = InMemory()) -> SegmentMaker:
    """The maker for a device setting, after its segments proved themselves.

    Raises SettingsError for a GPU or a kind that cannot be had, SegmentCheckError for a segment that answers wrongly.
    """
    missing = "asked for" if device == "cpu" else _missing_for_gpu()
    if device == "gpu" and missing:
        raise SettingsError(f"HEADRACE_INDEX_DEVICE=gpu, but {missing}")
    if missing:
        maker = _in_main_memory(in_memory, f"{device}: {missing}")
    else:
        maker = torch_maker("cuda", f"{device}: there is a CUDA device")
    check_segment(maker.make(DIMENSION))
    return maker


def _in_main_memory(wanted: InMemory, reason: str) -> SegmentMaker:
    if wanted.kind == "flat":
        return SegmentMaker(FlatSegment, f"{reason}; flat: asked for")
    kernels = compiled_kernels()
    if not kernels:
        lacking = "the scan was not compiled when this was installed"
        if wanted.kind != "auto":
            raise SettingsError(f"HEADRACE_INDEX_SEGMENT={wanted.kind}, but {lacking}")
        return SegmentMaker(FlatSegment, f"{reason}; flat: {lacking}")
    if wanted.kind == "auto" and kernels[0] == _SLOW:
        return SegmentMaker(FlatSegment, f"{reason}; flat: this processor has no fast products of bytes")
    from headrace.index.cell_segment import CellSegment
    from headrace.index.compact_segment import CompactSegment

    reason = f"{reason}; {wanted.kind}: scans bytes by {kernels[0]}"
    if wanted.kind == "compact":
        return SegmentMaker(CompactSegment, reason)
    make = partial(CellSegment, cells_from=wanted.cells_from, recall_goal=wanted.recall_goal)
    return SegmentMaker(make, f"{reason}, in cells from {wanted.cells_from:,} rows on")


def compiled_kernels() -> tuple[str, ...]:
    """What the compiled scan can run by here, best first; nothing when it was not compiled."""
    try:
        from headrace.index import _scan
    except ImportError:
        return ()
    return _scan.kernels()


def torch_maker(device: str, reason: str) -> SegmentMaker:
    """A maker of segments on a torch device."""
    # imported only here: an index without a GPU has no torch
    from headrace.index.gpu_segment import GpuOwner, GpuSegment

    owner = GpuOwner(device)
    # a search waits for the device, whatever its size
    return SegmentMaker(lambda dimension: GpuSegment(dimension, owner), reason, owner.close, at_once=0)


def _missing_for_gpu() -> str:
    # looked for first: importing torch costs seconds and hundreds of megabytes
    if not any(path.exists() for path in _DEVICE_FILES):
        return "there is no NVIDIA device here"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "torch finds no CUDA device"
