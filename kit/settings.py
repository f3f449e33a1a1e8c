"""Settings that all services share, from `PACESETTER_*` in the environment.

Each service composes these with its own (`services/<name>/settings.py`). Secrets are files or
environment variables and never printed.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class KitSettings(BaseSettings):
    """What every service needs to know about its surroundings."""

    model_config = SettingsConfigDict(env_prefix="PACESETTER_", frozen=True, extra="ignore")

    kafka: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, comma separated.")
    topic_prefix: str = Field(
        "", description="Put before every topic and group: several installations, one cluster."
    )
    replication: int = Field(
        1, description="Replicas of each topic that we create; 3 on a cluster."
    )
    clock: Path | None = Field(
        None, description="A time map (kit.clock) for rehearsals; unset means real time."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: colour on a terminal, JSON elsewhere."
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    host: str = Field("127.0.0.1", description="Address that HTTP listens on.")
    max_connections: int = Field(
        10_000,
        gt=0,
        description="Open HTTP connections per process; more get 503. Twice the viewers of live "
        "boards that a process must be able to take, so that these leave room for all others.",
    )
    max_body_bytes: int = Field(
        2 * 1024 * 1024, description="Larger requests get 413: CRMs send well under 1 MiB."
    )
    api_keys: Path | None = Field(
        None, description="JSON file of hashed API keys (kit.auth); re-read when it changes."
    )
    oidc_issuer: str = Field("", description="Issuer (`iss`) of accepted tokens.")
    oidc_audience: str = Field("pacesetter", description="Audience (`aud`) of accepted tokens.")
    oidc_jwks_url: str = Field("", description="Where the issuer's public keys are.")
    dev_secret: SecretStr = Field(
        SecretStr(""), description="Secret of development tokens; only accepted on loopback."
    )

    @model_validator(mode="after")
    def _development_tokens_stay_local(self) -> Self:
        if self.dev_secret.get_secret_value() and self.host not in LOOPBACK:
            raise ValueError(
                "PACESETTER_DEV_SECRET accepts self-made tokens and is refused unless "
                "PACESETTER_HOST is a loopback address; configure PACESETTER_OIDC_* instead"
            )
        return self
