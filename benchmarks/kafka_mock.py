"""A mock Kafka cluster, the one in librdkafka, in a process of its own: for tests and benchmarks without a broker.

It speaks the protocol over a socket and keeps records in memory: at most 5 MB or 100,000 a partition. It makes
no topics when asked by the protocol and deletes no records; both are done here by its own functions.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_CONSUMER = 1


class KafkaMock:
    """One broker that can be stopped and started; it is gone when the block ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.bootstrap = self._answer()
        self._topics = 0

    def new_topic(self, partitions: int = 1) -> str:
        """The URL of a log in a topic that is empty."""
        self._topics += 1
        name = f"events-{self._topics}"
        self._do("topic", name, str(partitions))
        # it does not answer a fetch that waits when something comes
        return f"kafka://{self.bootstrap}/{name}?fetch.wait.max.ms=5"

    def delete_records(self, url: str, before: int) -> None:
        """Deletes what a topic's partition 0 has below a Kafka offset, as a broker's retention does."""
        self._do("delete", url.rpartition("/")[2].partition("?")[0], str(before))

    def stop_broker(self) -> None:
        """Cuts all connections off, and takes none until it is started again."""
        self._do("down")

    def start_broker(self) -> None:
        self._do("up")

    def _do(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        if (answer := self._answer()) != "0":
            raise RuntimeError(f"the mock cluster answers {answer!r} to {words}")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the mock cluster ended with exit status {self._process.wait()}")
        return line.strip()

    def __enter__(self) -> KafkaMock:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def kafka_mock() -> Iterator[KafkaMock]:
    with KafkaMock() as mock:
        yield mock


def _librdkafka() -> ctypes.CDLL:
    """The library that confluent-kafka came with: its Python face has no functions for the mock's topics."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    libraries = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    library = ctypes.CDLL(str(libraries[0]))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


def _serve() -> None:
    library = _librdkafka()
    error = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(
        _CONSUMER, ctypes.c_void_p(library.rd_kafka_conf_new()), error, ctypes.c_size_t(len(error))
    )
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), 1))
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "topic":
            code = library.rd_kafka_mock_topic_create(cluster, words[0].encode(), int(words[1]), 1)
        elif command == "delete":
            code = library.rd_kafka_mock_partition_delete_records(
                cluster, words[0].encode(), 0, ctypes.c_int64(int(words[1]))
            )
        elif command == "down":
            code = library.rd_kafka_mock_broker_set_down(cluster, 1)
        else:
            code = library.rd_kafka_mock_broker_set_up(cluster, 1)
        print(code, flush=True)


if __name__ == "__main__":
    _serve()
