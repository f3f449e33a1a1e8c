"""One configured CRM: whose it is, how it proves itself, and what its deal stages mean."""

from typing import Annotated, Any

import msgspec

CREDENTIALS = ("token", "client_secret", "refresh_token")  # of Api: never shown
Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]  # finite, too


class Stages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's stage ids that mean a deal is won or lost, until the CRM has told us its own."""

    won: frozenset[str] = frozenset({"closedwon"})
    lost: frozenset[str] = frozenset({"closedlost"})

    def status_of(self, stage: str) -> str:
        """`won`, `lost` or `open`."""
        if stage in self.won:
            return "won"
        return "lost" if stage in self.lost else "open"


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How we ask the CRM for what its events don't say. Without credentials, records wait."""

    url: str = ""  # the vendor's own, when empty
    token: str = ""  # a private app's, an API token's
    client_id: str = ""  # OAuth: refreshed with these three
    client_secret: str = ""
    refresh_token: str = ""
    token_url: str = ""
    requests_per_second: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 5.0

    def __repr__(self) -> str:
        """Without credentials: it may get into a log."""
        return f"Api({self.url!r})"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CRM account that sends us events. `secrets`: the current one, then those still accepted."""

    id: str
    tenant: str
    vendor: str  # a module of domain.vendors
    secrets: tuple[str, ...] = ()
    username: str = ""  # HTTP Basic
    header: str = ""  # the header that carries the secret, where the vendor lets one choose
    query: str = ""  # or the query parameter
    account: str = ""  # the vendor's id of the account; events of another one are refused
    stages: Stages = Stages()
    currency: str = ""  # of amounts without one: assumed, and shown as assumed
    types: dict[str, str] = {}  # record types of the vendor's own object types
    mapping: dict[str, Any] = {}  # how a body that no reader knows is read (guide: mapping)
    api: Api | None = None
    paused: bool = False
    rate: Rate = 0.0  # requests per second that each process takes; 0: as many as come
    legacy_signatures: bool = False  # HubSpot v1 and v2 where no v3 header comes: no protection
    # against a replayed request, which our positions make harmless

    def __repr__(self) -> str:
        """Without secrets: it may get into a log."""
        return f"Source({self.id!r}, tenant={self.tenant!r}, vendor={self.vendor!r})"
