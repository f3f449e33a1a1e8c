"""Avro as the Pub/Sub API sends it: an event's fields, and the bitmaps that name some of them.

The library that decodes follows a schema wherever it leads: one that contains itself ends the
process. So a schema is taken only when its depth is bounded and each of its values takes at least
a byte; then the payload's length bounds the work.
"""

import binascii
import io
import re
from base64 import b64decode
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import fastavro
import msgspec

from services.ingest.domain.facts import BadEventError

MAX_SCHEMA = 2_000_000  # bytes; that of an object with 800 fields takes about 100,000
MAX_PAYLOAD = 2_000_000  # bytes; Salesforce's events have at most 1 MB
MAX_DEPTH = 8  # records in records; compound fields make two
_PLAIN = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})
_BITMAP = re.compile(r"(?:(\d{1,4})-)?0x([0-9A-Fa-f]{1,1000})")


class Schema:
    """An event's fields in their order, those of compound ones too."""

    def __init__(self, definition: Any) -> None:
        checked = _Checked()
        cleaned = checked.clean(definition)
        if not isinstance(cleaned, dict) or cleaned["type"] != "record":
            raise BadEventError("the Avro schema is not that of a record")
        self.name = str(cleaned["name"])
        self._fields = [(each["name"], checked.parts(each["type"])) for each in cleaned["fields"]]
        self._parsed = fastavro.parse_schema(cleaned)

    def decode(self, encoded: str) -> dict[str, Any]:
        """The fields of an event's payload, which comes in base64."""
        try:
            payload = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadEventError("the payload is neither base64 nor an object of fields") from error
        if len(payload) > MAX_PAYLOAD:
            raise BadEventError(f"the payload has over {MAX_PAYLOAD:,} bytes")
        stream = io.BytesIO(payload)
        try:
            found = fastavro.schemaless_reader(stream, self._parsed, None)
        except Exception as error:
            raise BadEventError(f"{_NOT_ITS} ({type(error).__name__})") from error
        if stream.tell() != len(payload) or not isinstance(found, dict):
            raise BadEventError(_NOT_ITS)
        return found

    def named(self, parent: str | None, bits: int) -> Iterable[str]:
        """Names of the fields whose bits are set; of a compound field's, where one is given."""
        names, prefix = [name for name, _ in self._fields], ""
        if parent is not None:
            if int(parent) >= len(self._fields):
                raise BadEventError(f"the bitmaps name field {parent}, which the schema lacks")
            name, names = self._fields[int(parent)]
            prefix = f"{name}."
        if bits.bit_length() > len(names):
            raise BadEventError(
                f"the bitmaps name field {bits.bit_length() - 1} where the schema has {len(names)}:"
                " send the schema of the event's own schema_id"
            )
        return (f"{prefix}{name}" for number, name in enumerate(names) if bits >> number & 1)


_NOT_ITS = "the payload is not Avro by this schema: send the schema of the event's own schema_id"


@lru_cache(maxsize=32)
def parse(definition: bytes) -> Schema:
    """The schema of this JSON text."""
    if len(definition) > MAX_SCHEMA:
        raise BadEventError(f"the Avro schema has over {MAX_SCHEMA:,} bytes")
    try:
        return Schema(msgspec.json.decode(definition))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise BadEventError("schema is not an Avro schema in JSON") from error
    except fastavro.schema.SchemaParseException as error:
        raise BadEventError(f"schema is not an Avro schema: {error!s:.100}") from error


def expand(listed: Iterable[str], schema: Schema | None) -> set[str]:
    """The names of fields that a header lists, as names or as bitmaps."""
    names: set[str] = set()
    for text in listed:
        bitmap = _BITMAP.fullmatch(text)
        if bitmap is None:
            names.add(text)
        elif schema is None:
            raise BadEventError(
                f"{text:.40} is a bitmap of field numbers: send the event's Avro schema with it, "
                "as `schema`, or names in its place"
            )
        else:
            names.update(schema.named(bitmap[1], int(bitmap[2], 16)))
    return names


class _Checked:
    """A schema while it is checked: its named types, each once, and how deep they go."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[int, list[str]]] = {}  # by last part of the name

    def clean(self, schema: Any) -> Any:
        """The schema with all that decoding doesn't need left out; raises for what is unsafe."""
        return self._clean(schema, MAX_DEPTH)[0]

    def parts(self, schema: Any) -> list[str]:
        """The names of a compound field's fields; none where it isn't compound."""
        for one in schema if isinstance(schema, list) else [schema]:
            name = one["name"] if isinstance(one, dict) and "name" in one else one
            if isinstance(name, str) and _last(name) in self._named:
                return self._named[_last(name)][1]
        return []

    def _clean(self, schema: Any, room: int) -> tuple[Any, int]:
        """The type, and how many records it goes deep."""
        if room < 0:
            raise BadEventError(f"the Avro schema is over {MAX_DEPTH} records deep")
        if isinstance(schema, list):
            found = [(one, 0) if one == "null" else self._clean(one, room) for one in schema]
            return [one for one, _ in found], max((depth for _, depth in found), default=0)
        if isinstance(schema, str):
            return schema, self._depth(schema, room)
        match schema["type"]:
            case "record":
                return self._record(schema, room)
            case "enum":
                self._define(schema["name"], 0, [])
                return _only(schema, "type", "name", "namespace", "symbols"), 0
            case "array" | "map" as kind:
                content = "items" if kind == "array" else "values"
                if not isinstance(schema[content], str) or schema[content] not in _PLAIN:
                    raise BadEventError("the Avro schema has lists of other than plain values")
                return _only(schema, "type", content), 0
            case inner:  # a plain type in its long form
                return self._clean(inner, room - (not isinstance(inner, str)))

    def _record(self, schema: dict[str, Any], room: int) -> tuple[Any, int]:
        if not schema["fields"]:
            raise BadEventError("the Avro schema has a record without fields")
        found = [(each["name"], *self._clean(each["type"], room - 1)) for each in schema["fields"]]
        depth = 1 + max(depth for *_, depth in found)
        self._define(schema["name"], depth, [name for name, *_ in found])
        cleaned = _only(schema, "type", "name", "namespace")
        return cleaned | {
            "fields": [{"name": name, "type": kind} for name, kind, _ in found]
        }, depth

    def _define(self, name: str, depth: int, fields: list[str]) -> None:
        if self._named.setdefault(_last(name), (depth, fields))[1] is not fields:
            raise BadEventError(f"the Avro schema defines {name!r:.60} twice")

    def _depth(self, name: str, room: int) -> int:
        if name in _PLAIN:
            return 0
        depth, _ = self._named.get(_last(name), (None, None))
        if depth is None:  # not yet: a type inside itself is one of these
            raise BadEventError(f"the Avro schema uses {name!r:.60}, which is not defined before")
        if depth > room:
            raise BadEventError(f"the Avro schema is over {MAX_DEPTH} records deep")
        return depth


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _only(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: schema[name] for name in names if name in schema}
