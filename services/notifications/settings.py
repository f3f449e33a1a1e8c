"""Settings of the notifications service, from `NOTIFICATIONS_*` in the environment."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.settings import KitSettings
from services.notifications.domain.rules import InvalidRulesError, Rules, parse

SHIPPED_RULES = Path(__file__).parent / "rules.yaml"


class Settings(BaseSettings):
    """What this service can be told."""

    model_config = SettingsConfigDict(env_prefix="NOTIFICATIONS_", frozen=True, extra="ignore")

    kit: KitSettings = Field(default_factory=KitSettings, description="What all services share.")
    database: str = Field(
        default="postgresql://pacesetter@127.0.0.1:5432/notifications",
        description="The service's own PostgreSQL database.",
    )
    port: int = Field(default=8004, description="Port that HTTP listens on.")
    rules: Path = Field(default=SHIPPED_RULES, description="The rules file (YAML).")
    endpoints: Path | None = Field(
        default=None, description="The file of webhook endpoints (YAML); unset means none."
    )
    watch_batch: int = Field(
        default=500, ge=1, description="Windows looked at in one transaction: bounds its length."
    )
    grace_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Real seconds from a window's due time until it is looked at, in which facts "
        "that happened before it come through the other services.",
    )
    send_batch: int = Field(
        default=20, ge=1, description="Webhook messages in flight per endpoint."
    )
    connect_seconds: float = Field(default=3.0, gt=0, description="To reach a webhook endpoint.")
    answer_seconds: float = Field(
        default=10.0, gt=0, description="For a webhook endpoint to answer; then it is a failure."
    )
    page_limit: int = Field(default=200, ge=1, description="Most entries of one page of a list.")
    stream_limit: int = Field(
        default=2000, ge=1, description="Open event streams per process; more get 503."
    )

    @property
    def lease_seconds(self) -> float:
        """How long a message being sent is left alone by other replicas."""
        return 2 * (self.connect_seconds + self.answer_seconds) + 10

    def load_rules(self) -> Rules:
        """The rules in force; raises `InvalidRulesError` that names the file."""
        try:
            return parse(read_yaml(self.rules))
        except InvalidRulesError as error:
            raise InvalidRulesError(f"{self.rules}: {error}") from error


def read_yaml(path: Path) -> Any:
    """The parsed file; raises ValueError when it is not YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
