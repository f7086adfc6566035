"""Small releases as learners would publish them: sound, broken (gate 0 tells) or with an order that is upside down."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.rollout_kills_stage import DIMENSION, SPACES, TITLES
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.serving_model import parts_of
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.towers import Towers, TowerShape
from headrace.runtime.artifacts import ArtifactStore
from headrace.trainer.registry import Registry, Release
from headrace.trainer.releases import Releases, Watermark

SOUND, BROKEN, UPSIDE_DOWN = "sound", "broken", "upside down"
_KEEP = 100_000


class Learner:
    """Publishes releases of any lineage."""

    def __init__(self, folder: Path, registry: Registry, seed: int) -> None:
        self._releases = Releases(ArtifactStore(str(folder / "artifacts")), registry, _KEEP)
        torch.manual_seed(seed)
        shape = TowerShape(dimension=DIMENSION, max_length=8, text_width=DIMENSION, brand_buckets=8, category_buckets=8)
        self._towers = Towers(shape)
        self._encoder = HashedNgramEncoder.fit(TITLES, DIMENSION, seed)
        self._ranker = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES), hidden=16))
        self._ranker.prefer({feature: float(torch.randn(1)) for feature in range(len(CANDIDATE_FEATURES))})

    def publish(self, lineage: str, kind: str) -> Release:
        """The next release of a lineage."""
        parts = self._parts(lineage, is_upside_down=kind == UPSIDE_DOWN)
        if kind == BROKEN:
            # finite, and of the right form: only its golden answers tell
            parts["ranker.safetensors"] = self._parts(lineage, is_upside_down=True)["ranker.safetensors"]
        space = SPACES[lineage]
        return self._releases.publish(parts, Watermark(lineage, space, len(TITLES), 1), {})

    def _parts(self, lineage: str, is_upside_down: bool) -> dict[str, bytes]:
        ranker = RankerNetwork(self._ranker.shape)
        ranker.load_state_dict(self._ranker.state_dict())
        with torch.no_grad():
            # as an increment is: close to what it follows, and not the same
            ranker.heads.weight += 1e-3 * torch.randn_like(ranker.heads.weight)
            if is_upside_down:
                ranker.heads.weight *= -1
        return parts_of(
            space=SPACES[lineage],
            feature_schema=FEATURE_SCHEMA,
            towers=self._towers,
            ranker=ranker,
            encoder=self._encoder,
        )
