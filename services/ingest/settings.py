"""Settings of ingest, from `INGEST_*` in the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.settings import KitSettings


class Settings(BaseSettings):
    """What ingest needs to know beyond what every service does."""

    model_config = SettingsConfigDict(env_prefix="INGEST_", frozen=True, extra="ignore")

    kit: KitSettings = Field(default_factory=KitSettings, description="Shared settings.")
    database: str = Field(
        default="postgresql://pacesetter@127.0.0.1:5432/ingest", description="PostgreSQL DSN."
    )
    port: int = Field(default=8001, description="Port that HTTP listens on.")
    sources: Path | None = Field(
        default=None,
        description="YAML list of the CRMs that may send (guide: sources); re-read on change.",
    )
    public_url: str = Field(
        default="http://127.0.0.1:8001",
        description="Base of the URL that CRMs call, as they know it: signatures cover it.",
    )
    max_items: int = Field(
        default=1000, ge=1, description="Events per request; HubSpot sends 100, more get 413."
    )
    max_entries: int = Field(
        default=10_000, ge=1, description="Directory entries per import; they are stored as one."
    )
    retry_after_seconds: int = Field(
        default=5, ge=1, description="What a sender is told to wait when Kafka is away."
    )
