"""One configured CRM: whose it is, how it proves itself, and what its deal stages mean."""

from typing import Literal, get_args

import msgspec

Vendor = Literal["hubspot", "pipedrive", "cloudevents"]
VENDORS: frozenset[str] = frozenset(get_args(Vendor))


class Stages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's stage ids that mean a deal is won or lost; every other stage is open."""

    won: frozenset[str] = frozenset({"closedwon"})
    lost: frozenset[str] = frozenset({"closedlost"})

    def status_of(self, stage: str) -> str:
        """`won`, `lost` or `open`."""
        if stage in self.won:
            return "won"
        return "lost" if stage in self.lost else "open"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CRM account that sends us events. `secrets`: the current one, then those still accepted."""

    id: str
    tenant: str
    vendor: Vendor
    secrets: tuple[str, ...] = ()
    username: str = ""
    stages: Stages = Stages()
    paused: bool = False
    legacy_signatures: bool = False  # HubSpot v1 and v2 where no v3 header comes: no protection
    # against a replayed request, which our positions make harmless
