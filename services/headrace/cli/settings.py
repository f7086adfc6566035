"""What the `headrace` command is told by the environment, besides what every process is."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.runtime.settings import Given


class CliSettings(Given):
    """Read from `HEADRACE_CLI_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_CLI_", frozen=True)

    api_key: str = Field("", repr=False, description="API key or JSON Web Token that every call brings")
