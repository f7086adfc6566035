"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "raise AssertionError('an empty migration')"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise AssertionError('an empty migration')"}
