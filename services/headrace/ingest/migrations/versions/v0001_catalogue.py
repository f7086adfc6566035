"""Items with their ordinals, products, dead letters, and how far the log is folded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.runtime.database import AnyText

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("product_id", AnyText, unique=True, nullable=False),
    )
    op.create_table(
        "products",
        sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("product", sa.LargeBinary, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("change_time_us", sa.BigInteger, nullable=False),
        sa.Column("log_offset", sa.BigInteger, nullable=False),
        sa.Column("change_id", sa.String, nullable=False),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("digest", sa.String, unique=True, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.String, nullable=False, index=True),
        sa.Column("violations", sa.Text, nullable=False),
        sa.Column("refused_time_us", sa.BigInteger, nullable=False),
        # ids are page tokens: they are never given twice
        sqlite_autoincrement=True,
    )
    op.create_table(
        "folds",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("log_offset", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("folds", "dead_letters", "products", "items"):
        op.drop_table(table)
