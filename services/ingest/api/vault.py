"""How secrets that are given by API are kept beside those that are kept already."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.crm import StoredSecret
from services.ingest.domain.sealing import SEALED
from services.ingest.domain.sources import CREDENTIALS
from services.ingest.gateway import SecretError, is_reference

MAX_SECRETS = 5  # in force at once: each costs a signature per request


@dataclass(frozen=True, slots=True)
class Vault:
    """One tenant's: what is stored can be opened, and what is given can be stored."""

    of_stored: Callable[[str], str]
    stored: Callable[[str], str]

    def resolve(self, text: str) -> str:
        """The secret itself, of what is kept as of what was just given."""
        return self.of_stored(text) if text.startswith(SEALED) or is_reference(text) else text

    def is_same(self, kept: str, given: str) -> bool:
        """Whether a kept secret is the one given, so that it needn't be sealed anew."""
        if is_reference(kept) or is_reference(given):
            return kept == given
        try:
            return secrets.compare_digest(self.of_stored(kept).encode(), given.encode())
        except SecretError:
            return False  # its key is gone

    def keep(self, given: object, kept: str, name: str, faults: list[str]) -> str:
        """How one secret is kept; what is wrong with it goes to `faults`."""
        if not isinstance(given, str) or given.startswith(SEALED):
            faults.append(f"{name}: expected text, a secret or a reference to one")
            return kept
        if kept and self.is_same(kept, given):
            return kept
        try:
            return self.stored(given)
        except SecretError as error:
            faults.append(f"{name}: {error}")
            return kept

    def secrets(
        self, given: object, kept: list[StoredSecret], faults: list[str]
    ) -> list[StoredSecret]:
        """How a list of secrets is kept."""
        if not isinstance(given, list) or len(given) > MAX_SECRETS:
            faults.append(f"secrets: expected a list of at most {MAX_SECRETS}")
            return kept
        found: list[StoredSecret] = []
        for number, one in enumerate(given):
            same = next(
                (k for k in kept if isinstance(one, str) and self.is_same(k.value, one)), None
            )
            if same is None:
                value = self.keep(one, "", f"secrets[{number}]", faults)
                same = StoredSecret(value) if value else None
            if same is not None:
                found.append(StoredSecret(same.value))
        return found

    def credentials(
        self, api: Mapping[str, Any], old: Mapping[str, Any], faults: list[str]
    ) -> dict[str, Any]:
        """An `api` with its credentials as they are kept; absent ones stay, empty ones go.

        They were given for an address: whoever changes it must know them, not only be allowed to.
        """
        moved = any(api.get(name, "") != old.get(name, "") for name in ("url", "token_url"))
        found = dict(api)
        for name in CREDENTIALS:
            kept = str(old.get(name, ""))
            if name in api:
                found[name] = self.keep(api[name], kept, f"api.{name}", faults) if api[name] else ""
            elif kept and moved:
                faults.append(f"api.{name} must be sent again when url or token_url changes")
            elif kept:
                found[name] = kept
        return {name: value for name, value in found.items() if value != ""}
