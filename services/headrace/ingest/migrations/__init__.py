"""The schema of the catalogue's database, version by version (Alembic)."""
