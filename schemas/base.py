"""What every message has in common, and its one wire format (JSON, by msgspec).

`State` is the base of all messages. A class names its topic; an instance knows its key, so that
a producer can't put it anywhere else. Instances are frozen: change one with
`msgspec.structs.replace`.
"""

import re
from functools import cache
from typing import Any, ClassVar, Self

import msgspec

# Ids travel inside "tenant/kind/id" keys, in URLs and in file names.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
_ID = re.compile(ID_PATTERN)

_ENCODER = msgspec.json.Encoder(decimal_format="string")


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The full current state of one keyed thing, as of `version` (only grows per key)."""

    topic: ClassVar[str]

    tenant: str
    version: int

    @property
    def key(self) -> str:
        """The message key: `tenant/…`, the unit of ordering and compaction."""
        raise NotImplementedError

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message; raises `msgspec.DecodeError` that says where it is wrong."""
        state: Self = _decoder(cls).decode(data)
        return state

    def encode(self) -> bytes:
        """The bytes that go onto the topic."""
        return _ENCODER.encode(self)


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(getattr(kind, "variants", kind))


def valid_id(text: str) -> bool:
    """Whether `text` may be a tenant, person, team, source, plan or metric id."""
    return _ID.fullmatch(text) is not None
