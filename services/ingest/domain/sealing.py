"""Secrets at rest: encrypted and authenticated with keys that only ingest's processes hold.

Sealed text is Fernet (AES-128-CBC with HMAC-SHA256). The first key seals, every key opens, so that
keys are changed by putting a new one in front; what the old one sealed is sealed anew when it is
next written.
"""

import re
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

SEALED = "sealed:"


class SealError(ValueError):
    """Why something can't be sealed or opened, and what to do."""


class Seal:
    """Seals and opens text; without keys it does neither, and says so."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        try:
            found = [Fernet(key) for key in keys]
        except ValueError as error:
            raise SealError(
                "INGEST_SECRETS_KEY: a key is 32 random bytes in URL-safe base64; make one with "
                "`openssl rand -base64 32 | tr +/ -_`"
            ) from error
        self._fernet = MultiFernet(found) if found else None

    @property
    def usable(self) -> bool:
        """Whether there are keys."""
        return self._fernet is not None

    def seal(self, plain: str) -> str:
        """The text, so that only a holder of the keys can read it."""
        if self._fernet is None:
            raise SealError("INGEST_SECRETS_KEY is not set, so that no secret can be stored")
        return SEALED + self._fernet.encrypt(plain.encode()).decode()

    def open(self, sealed: str) -> str:
        """What was sealed; raises SealError when no key fits."""
        if self._fernet is None:
            raise SealError("a secret is sealed and INGEST_SECRETS_KEY is not set")
        try:
            return self._fernet.decrypt(sealed.removeprefix(SEALED)).decode()
        except InvalidToken as error:
            raise SealError(
                "a secret is sealed with a key that is not in INGEST_SECRETS_KEY"
            ) from error


def keys_of(text: str) -> list[str]:
    """The keys in a setting or file, separated by commas or white space."""
    return [key for key in re.split(r"[\s,]+", text) if key]
