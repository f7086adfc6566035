"""Where an event log on Kafka's protocol is: brokers, topic, and what more librdkafka is to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

SCHEME = "kafka://"
FORM = "kafka://host:port,host:port/topic"
_BROKERS = re.compile(r"[^\s,:/@]+:\d{1,5}(,[^\s,:/@]+:\d{1,5})*")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class KafkaUrl:
    """A URL taken apart; `options` are librdkafka's, from what follows the question mark."""

    brokers: str
    topic: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        """Which log, without what may be secret."""
        return f"topic {self.topic} at {self.brokers}"


def kafka_url(url: str) -> KafkaUrl:
    """The parts of a URL. ValueError: it has another form."""
    parts = urlsplit(url)
    topic = parts.path.removeprefix("/")
    if not (url.startswith(SCHEME) and _BROKERS.fullmatch(parts.netloc) and _TOPIC.fullmatch(topic)):
        raise ValueError(f"must be of the form {FORM}")
    return KafkaUrl(parts.netloc, topic, dict(parse_qsl(parts.query)))
