"""Who was forgotten, and how far each erasure is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "forgotten",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("until_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("request", sa.String, nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("log_offset", sa.BigInteger, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("receipt", sa.LargeBinary, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    for table in ("erasures", "forgotten"):
        op.drop_table(table)
