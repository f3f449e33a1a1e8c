"""What tests share: builders with defaults for everything that doesn't matter to a test."""

from collections.abc import Iterable
from datetime import UTC, datetime

from kit.auth import development_token
from schemas.crm import Field, Record, Scalar

DEV_SECRET = "a-secret-for-tests-only-not-for-use"
TENANT = "acme"


def instant(text: str) -> datetime:
    """`"2026-11-02T10:00"` in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_record(
    kind: str = "opportunity",
    /,
    number: str = "crm:1",
    *,
    version: int = 1,
    tenant: str = TENANT,
    deleted: bool = False,
    cleared: Iterable[str] = (),
    **fields: Scalar,
) -> Record:
    """A record whose `fields` are known values; those in `cleared` are known to be empty."""
    known = {name: Field("value", value, version, "e") for name, value in fields.items()}
    known |= {name: Field("cleared", None, version, "e") for name in cleared}
    return Record(
        tenant=tenant,
        version=version,
        type=kind,
        id=number,
        source=number.partition(":")[0],
        vendor="hubspot",
        fields=known,
        deleted=deleted,
        received_at=instant("2026-11-02T10:00"),
    )


def bearer(*roles: str, person: str = "", tenant: str = TENANT) -> dict[str, str]:
    """Request headers of someone with these roles."""
    token = development_token(DEV_SECRET, tenant=tenant, person=person, roles=list(roles))
    return {"Authorization": f"Bearer {token}"}
