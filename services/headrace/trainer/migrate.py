"""Makes or updates the tables of the registry, and ends: `python -m headrace.trainer.migrate`.

Every trainer does it too when it starts; done before, new pods find it done.
"""

from __future__ import annotations

import sys

from headrace.runtime.atomic import make_directory
from headrace.runtime.serving import told
from headrace.runtime.settings import CommonSettings, load
from headrace.trainer.registry import open_registry, registry_url
from headrace.trainer.settings import TrainerSettings


def migrate(settings: TrainerSettings, common: CommonSettings) -> None:
    """Brings the tables up to date, and leaves those that are. UnavailableError: the database is away."""
    folder = common.data_dir / "trainer"
    if not settings.registry_url:
        make_directory(folder)
    open_registry(registry_url(settings.registry_url, folder)).close()


def main() -> int:
    """0 when the tables are up to date; 2 and why when they can't be."""
    return told("trainer migrations", _run)


def _run() -> int:
    migrate(load(TrainerSettings), load(CommonSettings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
