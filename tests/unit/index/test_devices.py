from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from headrace.index import devices
from headrace.index.device_queue import DeviceQueue
from headrace.index.devices import InMemory, segment_maker, torch_maker
from headrace.index.settings import IndexSettings
from headrace.runtime.settings import SettingsError, load

GPU_HERE = not segment_maker("auto").reason.startswith("auto: there is no")


@pytest.mark.skipif(GPU_HERE, reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_a_clear_error() -> None:
    with pytest.raises(SettingsError, match="HEADRACE_INDEX_DEVICE=gpu, but there is no NVIDIA device here"):
        segment_maker("gpu")


@pytest.mark.skipif(GPU_HERE, reason="there is a GPU")
def test_the_process_ends_with_the_reason_when_the_gpu_is_missing() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "headrace.index"],
        env={"HEADRACE_INDEX_DEVICE": "gpu", "PATH": "/usr/bin"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 2
    assert b"HEADRACE_INDEX_DEVICE=gpu, but there is no NVIDIA device here" in ended.stderr


@pytest.mark.skipif(GPU_HERE, reason="there is a GPU")
def test_a_service_on_a_cpu_never_imports_torch() -> None:
    code = (
        "import sys; from headrace.index.__main__ import compose; from headrace.index.devices import segment_maker;"
        "maker = segment_maker('auto'); print(maker.make(4).kind, maker.reason, 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.decode()
    kind, reason = told.split(maxsplit=1)
    assert kind in ("compact-cpu", "flat-cpu")
    assert reason.startswith("auto: there is no NVIDIA device here; ")
    assert reason.endswith(" False\n")


def test_the_kind_in_main_memory_is_chosen_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "compiled_kernels", lambda: ("avx2", "portable"))
    scans = "cpu: asked for; auto: scans bytes by avx2, in cells from 250,000 rows on"
    assert told("auto") == ("compact-cpu", scans)
    assert told("compact") == ("compact-cpu", "cpu: asked for; compact: scans bytes by avx2")
    assert told("flat") == ("flat-cpu", "cpu: asked for; flat: asked for")
    monkeypatch.setattr(devices, "compiled_kernels", lambda: ("portable",))
    assert told("auto") == ("flat-cpu", "cpu: asked for; flat: this processor has no fast products of bytes")
    assert told("compact") == ("compact-cpu", "cpu: asked for; compact: scans bytes by portable")


def test_without_a_compiled_scan_faiss_serves_and_compact_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headrace.index._scan", None)
    monkeypatch.delattr("headrace.index._scan")
    assert told("auto") == ("flat-cpu", "cpu: asked for; flat: the scan was not compiled when this was installed")
    with pytest.raises(SettingsError, match="HEADRACE_INDEX_SEGMENT=compact, but the scan was not compiled"):
        segment_maker("cpu", InMemory("compact"))


def told(kind: devices.Kind) -> tuple[str, str]:
    maker = segment_maker("cpu", InMemory(kind))
    return maker.make(4).kind, maker.reason


def test_a_torch_segment_names_its_device() -> None:
    maker = torch_maker("cpu", "for a test")
    assert (maker.make(4).kind, maker.reason) == ("torch-cpu", "for a test")
    maker.close()


def test_settings_keep_their_names() -> None:
    settings = load(IndexSettings, {"HEADRACE_INDEX_DEVICE": "cpu", "HEADRACE_INDEX_SNAPSHOT_EVERY_MB": "7"})
    assert (settings.device, settings.snapshot_every_mb, settings.port) == ("cpu", 7, 7404)
    assert set(IndexSettings.model_fields) >= {"search_threads", "max_ordinal", "max_wait_s", "snapshot_every_s"}


def test_calls_that_wait_are_answered_as_one_batch_in_order() -> None:
    sizes: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def answer(calls: list[int]) -> list[int]:
        sizes.append(len(calls))
        return [call * 2 for call in calls]

    def hold() -> None:
        begun.set()
        go.wait()

    queue: DeviceQueue[int, int] = DeviceQueue(answer)  # type: ignore[arg-type]
    answers: dict[int, int] = {}
    holder = threading.Thread(target=queue.run, args=(hold,))
    holder.start()
    begun.wait()
    askers = [threading.Thread(target=lambda n=n: answers.update({n: queue.ask(n)})) for n in range(5)]
    for thread in askers:
        thread.start()
    while queue.waiting < 5:
        threading.Event().wait(0.001)
    go.set()
    for thread in [holder, *askers]:
        thread.join()
    queue.close()
    assert answers == {n: n * 2 for n in range(5)}
    assert sizes == [5]


def test_an_error_reaches_everyone_who_asked_and_the_thread_goes_on() -> None:
    def answer(calls: list[int]) -> list[int]:
        return [10 // call for call in calls]

    queue: DeviceQueue[int, int] = DeviceQueue(answer)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        queue.ask(0)
    with pytest.raises(ZeroDivisionError):
        queue.run(lambda: 1 // 0)
    assert queue.ask(5) == 2
    queue.close()
