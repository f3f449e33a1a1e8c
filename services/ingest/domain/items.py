r"""A body's outside: where its items begin and end, before any of them is read.

Half of a character that takes two (`"\ud83d"`, as JavaScript writes a text cut inside an emoji) is
JSON by its grammar and not for strict readers, who then refuse the whole body. Only the item that
has it must be put aside, so that such a body is cut by a patient reader.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from services.ingest.domain.vendors import MalformedError

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder(msgspec.Raw)
_SPACE = re.compile(r"[ \t\n\r]*")


def split(body: bytes) -> list[msgspec.Raw]:
    """The items of an array, unread; raises DecodeError when the body isn't one."""
    try:
        return _ARRAY.decode(body)
    except msgspec.DecodeError as error:
        return [msgspec.Raw(item.encode()) for item in _cut(_text(body, error), error)]


def split_within(body: bytes, name: str) -> list[msgspec.Raw]:
    """The items of an array, or of the array of this name in an object; else the body is one."""
    if body.lstrip()[:1] == b"[":
        return split(body)
    inner = members(body).get(name)
    return [msgspec.Raw(body)] if inner is None else split(bytes(inner))


def count_within(body: bytes, name: str) -> int:
    """How many items `split_within` finds; raises MalformedError when it can't."""
    try:
        return len(split_within(body, name))
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(
            f"The body is neither an item, nor an array of items, nor {{{name}: []}}: {error}."
        ) from error


def count_array(_headers: Mapping[str, str], body: bytes) -> int:
    """How many items an array has; raises MalformedError when it isn't one."""
    try:
        return len(split(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"The body is not a JSON array of events: {error}.") from error


def count_object(_headers: Mapping[str, str], body: bytes) -> int:
    """1 for an object; raises MalformedError when it isn't one."""
    try:
        check_object(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"The body is not a JSON object: {error}.") from error
    return 1


def check_object(body: bytes) -> None:
    """Raise DecodeError unless the body is an object."""
    try:
        _OBJECT.decode(body)
    except msgspec.DecodeError as error:
        if not isinstance(_whole(_text(body, error), error), dict):
            raise


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object, unread; raises DecodeError when the body isn't one."""
    try:
        return _OBJECT.decode(body)
    except msgspec.DecodeError as error:
        text = _text(body, error)
        if not isinstance(_whole(text, error), dict):
            raise
        return {name: msgspec.Raw(value.encode()) for name, value in _cut_members(text)}


def check_json(body: bytes) -> None:
    """Raise DecodeError unless the body is JSON."""
    try:
        _ANY.decode(body)
    except msgspec.DecodeError as error:
        _whole(_text(body, error), error)


def _text(body: bytes, error: msgspec.DecodeError) -> str:
    """The body as text, where an escape may be all that is wrong with it."""
    if b"\\u" not in body:
        raise error
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise error from None


def _whole(text: str, error: msgspec.DecodeError) -> Any:
    try:
        return _PATIENT.decode(text)
    except ValueError:
        raise error from None


def _cut(text: str, error: msgspec.DecodeError) -> list[str]:
    items: list[str] = []
    if not isinstance(_whole(text, error), list):
        raise error
    at = _after_space(text, text.index("[") + 1)
    while text[at] != "]":  # a whole array, so that every place is one where something must be
        _, end = _PATIENT.raw_decode(text, at)
        items.append(text[at:end])
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return items


def _cut_members(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of each member of an object that is whole."""
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        name, end = _PATIENT.raw_decode(text, at)
        at = _after_space(text, _after_space(text, end) + 1)  # the colon
        _, end = _PATIENT.raw_decode(text, at)
        yield name, text[at:end]
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Numbers stay text: only places are asked for, and int() of a long text is slow.
_PATIENT = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
