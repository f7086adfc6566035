"""A shop whose learner publishes one increment after another, and whose log says what came of what was shown."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.shown_lists import shown_list
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.ranker_network import RankerNetwork
from headrace.model.serving_model import parts_of
from headrace.model.towers import Towers
from headrace.ranker.exploration import Exploration
from headrace.ranker.server import impression_message
from headrace.runtime.eventlog import LoggedRecord, Record
from headrace.trainer.impressions import ImpressionJoin
from headrace.trainer.learner import Learner
from headrace.trainer.paired_recall import ItemVectors
from headrace.trainer.ranker_learner import RankerLearner
from headrace.trainer.records import Slice, slice_of
from headrace.trainer.registry import Release, name_of
from headrace.trainer.settings import TrainerSettings
from headrace.v1 import common_pb2, log_pb2

START_US = 1_300_000_000_000_000
MINUTE_US = 60_000_000
SHOWN, PEOPLE = 8, 400
EXPLORATION = Exploration(0.9, 2.0)
_LIKED, _SEEN = CANDIDATE_FEATURES.index("price"), CANDIDATE_FEATURES.index("own_views")


@dataclass
class GateShop:
    """Two groups of items; everybody stays in one. What is liked of a list is a rule over two features."""

    settings: TrainerSettings
    group: int = 25
    written: int = 0
    parts: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.learner, self.ranker = Learner(self.settings), RankerLearner(self.settings)
        self._join = ImpressionJoin(300, 10_000)
        self.rng = np.random.default_rng(3)
        self._slices = 0
        self.released: list[Release] = []

    @property
    def items(self) -> int:
        return 2 * self.group

    def products(self) -> list[Record]:
        names = ("garden chair", "kitchen mug")
        return [
            self._record(
                "product-change",
                f"p{at}",
                START_US,
                log_pb2.ProductChange(
                    ordinal=at,
                    product=common_pb2.Product(id=f"p{at}", title=f"{names[at // self.group]} number{at}"),
                    change_time_us=START_US,
                ),
            )
            for at in range(self.items)
        ]

    def minute(self, people: int) -> list[Record]:
        """People look round, search, are shown lists and look at what they like, within a minute."""
        self._slices += 1
        at = START_US + self._slices * 10 * MINUTE_US
        records: list[Record] = []
        for person in self.rng.choice(PEOPLE, people, replace=False).tolist():
            records += self._walk(f"u:{person}", person % 2, at)
            records += self._list(f"u:{person}", person % 2, at)
        return records

    def _walk(self, key: str, group: int, at: int) -> list[Record]:
        seen = group * self.group + self.rng.choice(self.group, 4, replace=False)
        asked = ("chair", "mug")[group] + f" number{seen[0]}"
        search = common_pb2.UserEvent(event_type="search", user_id=key[2:], search_query=asked)
        logged = log_pb2.LoggedUserEvent(event=search, user_key=key, event_time_us=at)
        return [self._record("user-event", key, at, logged)] + [
            self._look(key, "", int(item), at + place * 1_000_000) for place, item in enumerate(seen, 1)
        ]

    def _list(self, key: str, group: int, at: int) -> list[Record]:
        features = self.rng.standard_normal((SHOWN, len(CANDIDATE_FEATURES))).astype(np.float32)
        with torch.no_grad():
            scores = self.ranker.averaged(torch.from_numpy(features))[:, 0].numpy()
        token = f"t-{self.written}"
        ordinals = (group * self.group + self.rng.choice(self.group, SHOWN, replace=False)).astype(np.uint32)
        release = self.released[-1].name if self.released else ""
        shown = shown_list(EXPLORATION, ordinals, scores, features, token, key, at + 10_000_000, release)
        impression, ordinals, features = impression_message(shown), shown.ordinals, shown.features
        chance = 1 / (1 + np.exp(2.0 - 1.5 * features[:, _LIKED] - features[:, _SEEN]))
        liked = ordinals[self.rng.random(SHOWN) < chance]
        looks = [self._look(key, token, int(item), at + (20 + place) * 1_000_000) for place, item in enumerate(liked)]
        return [self._record("impression", key, at, impression), *looks]

    def _look(self, key: str, token: str, ordinal: int, at: int) -> Record:
        event = common_pb2.UserEvent(event_type="detail-page-view", user_id=key[2:], attribution_token=token)
        logged = log_pb2.LoggedUserEvent(event=event, user_key=key, item_ordinals=[ordinal], event_time_us=at)
        return self._record("user-event", key, at, logged)

    def _record(self, kind: str, key: str, at: int, payload: object) -> Record:
        self.written += 1
        return Record(kind, key, f"{kind}-{self.written}", at, payload.SerializeToString())  # type: ignore[attr-defined]

    def learn(self, records: list[Record]) -> None:
        """A slice, as a lineage learns it."""
        found = sliced(records)
        self.learner.sent.note(self.learner.learn_products(found.products))
        self.learner.sent.note(self.learner.learn(found, self._slices).deltas)
        self.ranker.learn(self._join.fold(found.impressions, found.events))

    def publish(self, towers: Towers | None = None, ranker: RankerNetwork | None = None) -> Release:
        """A release of what is learned, or of something else."""
        self.learner.sent.note(self.learner.drifted())
        name = name_of(len(self.parts) + 1)
        self.parts[name] = parts_of(
            space="main-1",
            feature_schema=FEATURE_SCHEMA,
            towers=towers or self.learner.towers,
            ranker=ranker or self.ranker.averaged,
            encoder=self.learner.catalogue.encoder,
        )
        release = Release(name, "", "main", "main-1", self.settings.dimension, 0, 0, FEATURE_SCHEMA, (), {}, 0, name)
        if towers is None and ranker is None:
            self.released.append(release)
        return release

    def read(self, release: Release) -> Mapping[str, bytes]:
        return self.parts[release.name]

    async def of(self, space: str, ordinals: np.ndarray) -> ItemVectors:
        """The vectors as they are sent by now."""
        vectors = self.learner.sent.dense()
        ordinals = ordinals[ordinals < len(vectors)]
        return ItemVectors(ordinals, vectors[ordinals])

    def flipped_ranker(self) -> RankerNetwork:
        """Every head with the other sign."""
        network = copy.deepcopy(self.ranker.averaged)
        network.heads.load_state_dict({name: -value for name, value in network.heads.state_dict().items()})
        return network

    def flipped_order(self) -> RankerNetwork:
        """Foretells clicks as before, and puts the best last."""
        network = copy.deepcopy(self.ranker.averaged)
        with torch.no_grad():
            network.heads.weight[0] *= -1
        return network

    def shuffled_ranker(self) -> RankerNetwork:
        """What was learned of one feature is said of another."""
        network = copy.deepcopy(self.ranker.averaged)
        places = torch.from_numpy(np.random.default_rng(5).permutation(network.shape.features))
        with torch.no_grad():
            for weights in (*(cross.weight for cross in network.crosses), network.deep[0].weight):
                weights.copy_(weights[:, places])
            network.heads.weight[:, : len(places)] = network.heads.weight[:, places]
        return network

    def flipped_towers(self, part: str) -> Towers:
        """The last layer of the user or the query tower with the other sign."""
        towers = copy.deepcopy(self.learner.towers)
        module = getattr(towers, part)
        last = [each for each in module.modules() if isinstance(each, torch.nn.Linear)][-1]
        last.load_state_dict({name: -value for name, value in last.state_dict().items()})
        if part == "user" and module.has_habit:
            module.habit_gain.load_state_dict({n: -v for n, v in module.habit_gain.state_dict().items()})
        return towers


def sliced(records: list[Record]) -> Slice:
    """The records as they are read from a log."""
    logged = [
        LoggedRecord(at, 0, at, record.kind, record.key, record.event_id, record.time_us, record.payload, "")
        for at, record in enumerate(records, 1)
    ]
    return replace(slice_of(logged, 0, len(logged)), traceparent="")
