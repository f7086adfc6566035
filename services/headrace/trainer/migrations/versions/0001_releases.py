"""Releases and the serving plan."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.runtime.database import AnyNumbers

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.String(64), nullable=False),
        sa.Column("lineage", sa.String(64), nullable=False),
        sa.Column("space", sa.String(64), nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("delta_sequence", sa.BigInteger, nullable=False),
        sa.Column("log_offset", sa.BigInteger, nullable=False),
        sa.Column("feature_schema", sa.String(64), nullable=False),
        sa.Column("parts", sa.JSON, nullable=False),
        sa.Column("metrics", AnyNumbers, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
    )
    op.create_table(
        "serving_plan",
        sa.Column("track", sa.String(16), primary_key=True),
        sa.Column("release_number", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("serving_plan")
    op.drop_table("releases")
