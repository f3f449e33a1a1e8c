"""Outbound messages: SOAP with 1 to 100 notifications, cut so that each can be read alone.

Documents that declare a type or entities are refused, and so are deep and very large ones: nobody
who sends outbound messages has use for them.
"""

from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

import msgspec

from services.ingest.domain.facts import BadEventError
from services.ingest.domain.vendors import MalformedError

MAX_DEPTH = 16
MAX_ELEMENTS = 100_000
MAX_NOTIFICATIONS = 100  # as Salesforce has it
MAX_AROUND = 65_536  # bytes that are not notifications, repeated with each of them
_NAMESPACE = "http://soap.sforce.com/2005/09/outbound"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"

ACKNOWLEDGEMENT = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack>'
    b"</notificationsResponse></soapenv:Body></soapenv:Envelope>"
)


class Notification(msgspec.Struct, frozen=True):
    """One record as it was when the message was sent; None is an emptied field."""

    id: str
    entity: str
    fields: Mapping[str, str | None]


def is_soap(body: bytes) -> bool:
    """Whether a body is XML; JSON never begins like this."""
    return body[:100].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def organization(body: bytes) -> str:
    """The id of the organization that sends; empty when it isn't said."""
    return next((one.text() for one in _parse(body).children if one.is_a("OrganizationId")), "")


def split(body: bytes) -> list[bytes]:
    """One whole message per notification: the body without the others."""
    spans = [(one.start, one.end) for one in _notifications(body)]
    if not 0 < len(spans) <= MAX_NOTIFICATIONS:
        raise MalformedError(
            f"The SOAP message has {len(spans)} of 1 to {MAX_NOTIFICATIONS} Notifications."
        )
    before, after = body[: spans[0][0]], body[spans[-1][1] :]
    if len(before) + len(after) > MAX_AROUND:
        raise MalformedError(f"Over {MAX_AROUND} bytes of the SOAP message are no Notification.")
    return [before + body[start:end] + after for start, end in spans]


def read(body: bytes) -> Notification:
    """What a message with one notification says."""
    (found,) = _notifications(body)
    number = next((one.text() for one in found.children if one.is_a("Id")), "")
    record = next((one for one in found.children if one.is_a("sObject")), None)
    if not number or record is None:
        raise BadEventError("the Notification has no Id or no sObject")
    _, _, entity = record.attributes.get(f"{_XSI} type", "").rpartition(":")
    if not entity:
        raise BadEventError("the sObject's xsi:type doesn't say what it is")
    return Notification(number, entity, {one.local: one.value() for one in record.children})


def _notifications(body: bytes) -> list["_Element"]:
    return [one for one in _parse(body).children if one.is_a("Notification")]


class _Element:
    __slots__ = ("attributes", "children", "end", "name", "start", "texts")

    def __init__(self, name: str, attributes: dict[str, str], start: int) -> None:
        self.name = name  # "namespace local"
        self.attributes = attributes
        self.start, self.end = start, start  # bytes of the body
        self.children: list[_Element] = []
        self.texts: list[str] = []

    @property
    def local(self) -> str:
        return self.name.rpartition(" ")[2]

    def is_a(self, local: str) -> bool:
        return self.name == f"{_NAMESPACE} {local}"

    def text(self) -> str:
        return "".join(self.texts).strip()

    def value(self) -> str | None:
        if self.children:
            raise BadEventError(f"{self.local:.60} is not a plain value")
        if self.attributes.get(f"{_XSI} nil") in ("true", "1"):
            return None
        return "".join(self.texts)


def _parse(body: bytes) -> _Element:
    """The `notifications` element; raises MalformedError where there is none."""
    builder = _Builder(body)
    try:
        builder.parser.Parse(body, True)  # noqa: FBT003  # it takes no keywords
    except expat.ExpatError as error:
        raise MalformedError(f"The body is not XML: {error}.") from error
    found = builder.root
    if found.local != "Envelope":
        raise MalformedError("The XML is not an outbound message: it has no Envelope.")
    for local in ("Body", "notifications"):
        inner = next((one for one in found.children if one.local == local), None)
        if inner is None:
            raise MalformedError(f"The XML is not an outbound message: it has no {local}.")
        found = inner
    if not found.is_a("notifications"):
        raise MalformedError(f"notifications is not in the namespace {_NAMESPACE}.")
    return found


class _Builder:
    """Makes elements of a document, within bounds."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._count = 0
        self.root = _Element("", {}, 0)
        self._open: list[_Element] = []
        self.parser = expat.ParserCreate("UTF-8", " ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = _refuse

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise MalformedError(
                f"The XML has over {MAX_ELEMENTS} elements, or some {MAX_DEPTH} deep."
            )
        element = _Element(name, attributes, self.parser.CurrentByteIndex)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _end(self, _name: str) -> None:
        end = self._body.find(b">", self.parser.CurrentByteIndex)
        self._open.pop().end = end + 1

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].texts.append(text)


def _refuse(*_: Any) -> None:
    raise MalformedError("The XML declares a document type: send it without DOCTYPE.")
