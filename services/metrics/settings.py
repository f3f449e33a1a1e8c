"""Settings of the metrics service, from `METRICS_*` in the environment."""

from pathlib import Path

from pydantic import Field, IPvAnyNetwork
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.settings import KitSettings

HERE = Path(__file__).parent


class Settings(BaseSettings):
    """What the metrics service needs beside the shared settings."""

    model_config = SettingsConfigDict(env_prefix="METRICS_", frozen=True, extra="ignore")

    kit: KitSettings = Field(default_factory=KitSettings)
    database: str = Field(
        default="postgresql://pacesetter@127.0.0.1:5432/metrics",
        description="Address of this service's own PostgreSQL database.",
    )
    port: int = Field(default=8002, description="Port that HTTP listens on.")
    catalogue: Path = Field(
        default=HERE / "catalogue.yaml", description="The metrics, as data (YAML)."
    )
    boards: Path = Field(
        default=HERE / "boards.yaml",
        description="The boards, and which measures are published, as data (YAML).",
    )
    fold_seconds: float = Field(
        default=0.1,
        gt=0,
        description="Pause between folds: measures, series and contests follow them.",
    )
    fold_rows: int = Field(
        default=50_000, gt=0, description="Deltas per fold: bounds its memory and its transaction."
    )
    waiting_rows: int = Field(
        default=300_000,
        gt=0,
        description="Deltas that may wait: boards look through them. Above, applying waits too.",
    )
    publish_rows: int = Field(
        default=5_000, gt=0, description="Measures per publication: bounds its memory."
    )
    recount_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of its time that a process gives to a recount of the past.",
    )
    board_seconds: float = Field(
        default=0.02, gt=0, description="Pause between two versions of what watched boards show."
    )
    stream_updates: int = Field(
        default=256,
        gt=0,
        description="Updates kept per board; a viewer who is further behind gets a snapshot.",
    )
    stream_limit: int = Field(
        default=5_000, gt=0, description="Open event streams per replica; more get 503."
    )
    stream_ping_seconds: int = Field(
        default=15,
        gt=0,
        description="Pause between keep-alives; proxies cut silence at 30 s.",
    )
    secrets_folder: Path | None = Field(
        default=None,
        description="Where displays' secrets may be: a folder per tenant, a file per secret.",
    )
    display_networks: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Networks of one's own that displays may be in, beside public addresses; a "
        'JSON list, e.g. `["10.20.0.0/16"]`.',
    )
    display_connect_seconds: float = Field(default=3.0, gt=0, description="To reach a display.")
    display_answer_seconds: float = Field(
        default=5.0, gt=0, description="For a display to take an event; then it is a failure."
    )
