"""Rollouts: one plan for all tracks, phases with their history, and what deciding needs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.runtime.database import AnyNumbers

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_plan()
    _create_rollouts()
    _create_decider()
    op.drop_table("serving_plan")


def _create_plan() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "current_plan",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("stable", sa.Integer, nullable=False),
        sa.Column("canary", sa.Integer, nullable=False),
        sa.Column("shadow", sa.Integer, nullable=False),
        sa.Column("rollout", sa.String(32), nullable=False),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("share_bp", sa.Integer, nullable=False),
        sa.Column("hold", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO current_plan (id, sequence, stable, canary, shadow, rollout, salt, share_bp, hold) "
        "SELECT 1, sequence, release_number, 0, 0, '', '', 0, '' FROM serving_plan WHERE track = 'stable'"
    )
    op.execute("INSERT INTO counters (name, value) SELECT 'release', MAX(number) FROM releases HAVING COUNT(*) > 0")


def _create_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("track", sa.String(16), nullable=False),
        sa.Column("feeds", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("resumes_in", sa.String(16), nullable=False),
        sa.Column("release_number", sa.Integer, nullable=False),
        sa.Column("baseline_number", sa.Integer, nullable=False),
        sa.Column("lineage", sa.String(64), nullable=False),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("alpha", sa.Double, nullable=False),
        sa.Column("alpha_day", sa.Integer, nullable=False),
        sa.Column("share_bp", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("step_time_us", sa.BigInteger, nullable=False),
        sa.Column("steps_bp", sa.JSON, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("gates", AnyNumbers, nullable=False),
        sa.Column("comparisons", AnyNumbers, nullable=False),
        sa.Column("marks", sa.JSON, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("phase_time_us", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_rollouts_phase", "rollouts", ["phase"])
    op.create_index("ix_rollouts_alpha_day", "rollouts", ["alpha_day"])
    op.create_table(
        "rollout_transitions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("rollout_number", sa.Integer, nullable=False),
        sa.Column("from_phase", sa.String(16), nullable=False),
        sa.Column("to_phase", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_rollout_transitions_rollout_number", "rollout_transitions", ["rollout_number"])


def _create_decider() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ranker_reports",
        sa.Column("ranker", sa.String(200), primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("report", AnyNumbers, nullable=False),
    )
    op.create_table(
        "webhook_cursors",
        sa.Column("url", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.create_table(
        "serving_plan",
        sa.Column("track", sa.String(16), primary_key=True),
        sa.Column("release_number", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    # before rollouts there was one track
    op.execute(
        "INSERT INTO serving_plan (track, release_number, sequence) "
        "SELECT 'stable', stable, sequence FROM current_plan WHERE stable > 0"
    )
    for table in ("webhook_cursors", "ranker_reports", "leases"):
        op.drop_table(table)
    for table in ("rollout_transitions", "rollouts", "current_plan", "counters"):
        op.drop_table(table)
