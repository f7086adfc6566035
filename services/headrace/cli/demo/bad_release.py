"""A release gone bad on purpose: sound in form, finite, with golden answers of its own, and its order upside down.

So does a sign that is wrong in a loss: nothing that looks at the release alone can find it.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

LINEAGE = "upside-down"
_KEEP = 20


def publish_upside_down(data_dir: Path, release: str) -> str:
    """The name of a copy of `release` that orders worst first, registered and serving nobody."""
    from safetensors.numpy import load, save

    from headrace.runtime.artifacts import ArtifactStore
    from headrace.runtime.release_signing import release_signer
    from headrace.runtime.settings import CommonSettings
    from headrace.runtime.settings import load as settings_of
    from headrace.trainer.registry import open_registry, registry_url
    from headrace.trainer.releases import Releases, Watermark
    from headrace.trainer.settings import TrainerSettings

    settings, common = settings_of(TrainerSettings), settings_of(CommonSettings)
    store = ArtifactStore(settings.artifacts_url or str((data_dir / "artifacts").absolute()))
    with closing(open_registry(registry_url(settings.registry_url, data_dir / "trainer"))) as registry:
        releases = Releases(store, registry, _KEEP, signer=release_signer(common))
        sound = registry.release(release)
        parts = releases.parts(sound)
        ranker, golden = load(parts["ranker.safetensors"]), load(parts["golden.safetensors"])
        # the first head is the one that orders
        for name in ("heads.weight", "heads.bias"):
            ranker[name][0] *= -1
        golden["scores"] *= -1
        parts |= {"ranker.safetensors": save(ranker), "golden.safetensors": save(golden)}
        watermark = Watermark(LINEAGE, sound.space, sound.delta_sequence, sound.log_offset)
        return releases.publish(parts, watermark, {}).name
