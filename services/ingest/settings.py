"""Settings of ingest, from `INGEST_*` in the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kit.settings import KitSettings

Role = Literal["receive", "normalise", "backfill"]


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
    secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="Keys that seal the secrets given by API, comma separated: the first seals, "
        "all open. `env:NAME` or `file:PATH` say where they are. Without, secrets given by API "
        "can only be references.",
    )
    secrets_folder: Path | None = Field(
        default=None,
        description="Folder with one folder per tenant, whose files sources may name as secrets.",
    )
    tenant_rate: float = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="Requests per second that each process takes of one tenant's sources together, "
        "beside each source's own `rate`; a second's worth may come at once, more get 429 with "
        "Retry-After. 0: as many as come.",
    )
    roles: Annotated[frozenset[Role], NoDecode] = Field(
        default=frozenset({"receive", "normalise", "backfill"}),
        description="What this process does beside the API, comma separated: `receive` takes what "
        "CRMs send (without it they get 503: send them to a process that does), `normalise` reads "
        "live requests, `backfill` reads imports and answers of CRMs.",
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

    event_days: int = Field(
        default=90,
        ge=1,
        description="Days for which the trace of an event is kept; the records and the raw log "
        "have their own retention.",
    )
    backfill_rate: float = Field(
        default=10.0,
        gt=0,
        description="Messages per second that the backfill lane takes (each an answer of a CRM, or "
        "up to 500 imported rows), whatever it waits for; what is behind shares their load.",
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _roles_of_text(cls, given: object) -> object:
        if isinstance(given, str):
            return frozenset(role.strip() for role in given.split(",") if role.strip())
        return given
