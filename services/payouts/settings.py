"""Settings of the payouts service, from `PAYOUTS_*` in the environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.settings import KitSettings


class Settings(BaseSettings):
    """Where payouts keeps its data and how much it does at once."""

    model_config = SettingsConfigDict(env_prefix="PAYOUTS_", frozen=True, extra="ignore")

    kit: KitSettings = Field(
        default_factory=KitSettings, description="What all services share (`PACESETTER_*`)."
    )
    database: str = Field(
        default="postgresql://pacesetter@127.0.0.1:5432/payouts",
        description="DSN of this service's own PostgreSQL database.",
    )
    port: int = Field(default=8003, description="Port that HTTP listens on.")
    verify_seconds: float = Field(
        default=60.0,
        description="How often the ledger is compared with the statements; one pass reads both.",
    )
    page_size: int = Field(
        default=100, ge=1, le=1000, description="Entries per page of a list unless `limit` says."
    )
    max_plan_bytes: int = Field(
        default=128 * 1024,
        description="Larger plan texts get 413: a plan with 20 components of 50 tiers is smaller.",
    )
