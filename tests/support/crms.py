"""Stand-ins for the CRMs' APIs, as their documentation has them, served on loopback."""

import asyncio
import base64
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "client-1", "client-secret-0451"
STATIC_TOKEN = "static-token-0815"


@dataclass
class Asked:
    """One request as the stand-in saw it."""

    method: str
    path: str
    query: Mapping[str, str]
    json: Any


@dataclass
class Crm:
    """What all of them have: tokens, faults to order, and a memory of what they were asked."""

    asked: list[Asked] = field(default_factory=list)
    faults: deque[Response] = field(default_factory=deque)
    token_faults: deque[Response] = field(default_factory=deque)
    tokens_given: int = 0
    takes_tokens: bool = True  # those that it has given
    token: str = STATIC_TOKEN
    lasts: int = 1800
    refresh_token: str = ""
    page_size: int = 1000
    url: str = ""

    def app(self) -> Starlette:
        """The stand-in as an ASGI application."""
        return Starlette(
            routes=[
                Route("/token", self._give_token, methods=["POST"]),
                Route("/{path:path}", self._answer, methods=["GET", "POST"]),
            ]
        )

    def revoke(self) -> None:
        """Make whoever holds a token ask for another."""
        self.token = "revoked"

    def proof(self, request: Request) -> str:
        """The token that a request carries."""
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [each.path for each in self.asked]

    def reply(self, asked: Asked) -> Response:
        """The vendor's answer."""
        raise NotImplementedError

    async def _give_token(self, request: Request) -> Response:
        form = {
            name: values[0] for name, values in parse_qs((await request.body()).decode()).items()
        }
        await asyncio.sleep(0.01)  # so that workers meet
        if self.token_faults:
            return self.token_faults.popleft()
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        given = base64.b64decode(basic).decode() if basic else ""
        pair = given or f"{form.get('client_id')}:{form.get('client_secret')}"
        if pair != f"{CLIENT_ID}:{CLIENT_SECRET}":
            words = f"invalid client {pair}"  # a careless vendor that repeats what it got
            return JSONResponse({"error": "invalid_client", "error_description": words}, 400)
        if self.refresh_token and form.get("refresh_token") != self.refresh_token:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.tokens_given += 1
        self.token = f"token-{self.tokens_given}"
        if self.refresh_token:  # each can be used once
            self.refresh_token = f"refresh-{self.tokens_given}"
        return JSONResponse(
            {
                "access_token": self.token,
                "expires_in": self.lasts,
                "instance_url": self.url,
                **({"refresh_token": self.refresh_token} if self.refresh_token else {}),
            }
        )

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        asked = Asked(
            request.method,
            request.url.path,
            dict(request.query_params),
            json.loads(body) if body else None,
        )
        if self.proof(request) != self.token or not self.takes_tokens:
            return JSONResponse({"message": "The token is expired."}, 401)
        self.asked.append(asked)
        await asyncio.sleep(0.01)  # so that workers meet
        if self.faults and self.may_fail(asked):
            return self.faults.popleft()
        return self.reply(asked)

    def may_fail(self, _asked: Asked) -> bool:
        """Whether this is a request that faults are ordered for."""
        return True


@dataclass
class HubSpot(Crm):
    """CRM API v3, and associations of v4."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by type id, by id
    pipelines: list[Any] = field(default_factory=list)
    owners: list[Any] = field(default_factory=list)
    own_properties: Sequence[str] = ()
    poison: str = ""  # an id that makes a whole batch fail
    merged: dict[str, str] = field(default_factory=dict)  # into what
    # Ids by type id, id and the others' type id; None: the token's scopes don't have them.
    links: dict[tuple[str, str, str], list[str]] | None = None
    link_faults: deque[Response] = field(default_factory=deque)

    def may_fail(self, asked: Asked) -> bool:
        """What is only asked beside the objects has faults of its own."""
        return "associations" not in asked.path

    def reply(self, asked: Asked) -> Response:
        """Objects in batches and pages, links, properties, pipelines and owners."""
        if found := re.fullmatch(r"/crm/v4/associations/(.+)/(.+)/batch/read", asked.path):
            return self._linked(found[1], found[2], asked.json)
        if asked.path == "/crm/v3/owners":
            return JSONResponse({"results": self.owners})
        if asked.path == "/crm/v3/pipelines/deals":
            return JSONResponse({"results": self.pipelines})
        if found := re.fullmatch(r"/crm/v3/properties/([\w-]+)", asked.path):
            names = [{"name": name, "hubspotDefined": False} for name in self.own_properties]
            standard = {"name": "hs_analytics_source", "hubspotDefined": True}
            return JSONResponse({"results": [*names, standard]})
        if found := re.fullmatch(r"/crm/v3/objects/([\w-]+)(/batch/read)?", asked.path):
            known = self.objects.get(found[1], {})
            return self._batch(known, asked.json) if found[2] else self._list(known, asked.query)
        return JSONResponse({"message": "no such resource"}, 404)

    def _batch(self, known: dict[str, Any], body: Any) -> Response:
        ids = [self.merged.get(each["id"], each["id"]) for each in body["inputs"]]
        ids = list(dict.fromkeys(ids))
        if self.poison in ids:
            return JSONResponse({"status": "error", "message": "Invalid input JSON"}, 400)
        if len(ids) > (50 if body["propertiesWithHistory"] else 100):
            return JSONResponse({"status": "error", "message": "too many"}, 400)
        results = [self._shown(known[number], body) for number in ids if number in known]
        missing = [number for number in ids if number not in known]
        if not missing:
            return JSONResponse({"status": "COMPLETE", "results": results})
        error = {
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "message": "Could not get some objects, they may be deleted or not exist.",
            "context": {"ids": missing},
        }
        body = {"status": "COMPLETE", "results": results, "numErrors": 1, "errors": [error]}
        return JSONResponse(body, 207)

    def _linked(self, near: str, far: str, body: Any) -> Response:
        """The first of them is the primary one; of an object without any it is said so."""
        if self.link_faults:
            return self.link_faults.popleft()
        if self.links is None:
            return JSONResponse({"category": "MISSING_SCOPES", "message": "no"}, 403)
        results: list[Any] = []
        errors: list[Any] = []
        for number in (each["id"] for each in body["inputs"]):
            if number == self.poison:
                return JSONResponse({"status": "error", "message": "Invalid input JSON"}, 400)
            to: list[Any] = [
                {
                    "toObjectId": int(other),
                    "associationTypes": [
                        {"category": "HUBSPOT_DEFINED", "typeId": 341, "label": None},
                        *([] if n else [{"category": "HUBSPOT_DEFINED", "label": "Primary"}]),
                    ],
                }
                for n, other in enumerate(self.links.get((near, number, far), ()))
            ]
            if to:
                results.append({"from": {"id": number}, "to": to})
                continue
            error = {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",  # as of an object that is gone
                "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                "message": f"No company is associated with deal {number}.",
                "context": {"fromObjectId": [number], "fromObjectType": ["deal"]},
            }
            errors.append(error)
        answer: dict[str, Any] = {"status": "COMPLETE", "results": results}
        if errors:
            answer |= {"numErrors": len(errors), "errors": errors}
        return JSONResponse(answer, 207 if errors else 200)

    def _shown(self, found: Any, body: Any) -> Any:
        """Only the properties that were asked for; null where there is none."""
        properties = {n: found["properties"].get(n) for n in body["properties"]}
        history = {
            name: found.get("propertiesWithHistory", {}).get(name, [])
            for name in body["propertiesWithHistory"]
        }
        return found | {"properties": properties, "propertiesWithHistory": history}

    def _list(self, known: dict[str, Any], query: Mapping[str, str]) -> Response:
        start, limit = int(query.get("after", "0")), min(int(query["limit"]), self.page_size)
        ids = sorted(known)[start : start + limit]
        page: dict[str, Any] = {"results": [{"id": number, "properties": {}} for number in ids]}
        if start + limit < len(known):
            page["paging"] = {"next": {"after": str(start + limit)}}
        return JSONResponse(page)


@dataclass
class Salesforce(Crm):
    """REST API."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by object, by id
    hidden: set[str] = field(default_factory=set)

    def reply(self, asked: Asked) -> Response:
        """Describe, collections, and queries with their pages."""
        base = "/services/data/v62.0/"
        path = asked.path.removeprefix(base)
        if found := re.fullmatch(r"sobjects/(\w+)/describe", path):
            return JSONResponse({"fields": self._fields(found[1])})
        if found := re.fullmatch(r"composite/sobjects/(\w+)", path):
            rows = self.objects[found[1]]
            if not set(asked.json["fields"]) <= {one["name"] for one in self._fields(found[1])}:
                return JSONResponse([{"errorCode": "INVALID_FIELD", "message": "no"}], 400)
            shown = [
                None if self._is_gone(rows.get(number)) else rows[number]
                for number in asked.json["ids"]
            ]
            return JSONResponse(shown)
        if path == "queryAll":
            return self._query(asked.query["q"])
        if found := re.fullmatch(r"query/(\w+)-(\d+)", path):
            return self._page(found[1], sorted(self.objects[found[1]]), int(found[2]))
        return JSONResponse([{"errorCode": "NOT_FOUND", "message": "no"}], 404)

    def _fields(self, entity: str) -> list[dict[str, Any]]:
        names = {name for row in self.objects.get(entity, {}).values() for name in row}
        found = [{"name": n, "type": "string"} for n in sorted(names - {"attributes"})]
        formula = {"name": "Formula__c", "type": "double", "calculated": True}
        return [*found, formula, {"name": "BillingAddress", "type": "address"}]

    def _is_gone(self, row: Any) -> bool:
        return row is None or row["Id"] in self.hidden or row.get("IsDeleted") is True

    def _query(self, query: str) -> Response:
        entity = query.partition(" FROM ")[2].split()[0]
        if "WHERE" not in query:
            return self._page(entity, sorted(self.objects[entity]), 0)
        wanted = re.findall(r"'(\w+)'", query)
        rows = [self.objects[entity][number] for number in wanted if number in self.objects[entity]]
        deleted = [row for row in rows if row.get("IsDeleted") is True]
        return JSONResponse({"totalSize": len(deleted), "done": True, "records": deleted})

    def _page(self, entity: str, ids: list[str], start: int) -> Response:
        end = start + self.page_size
        page = {
            "totalSize": len(ids),
            "done": end >= len(ids),
            "records": [self.objects[entity][number] for number in ids[start:end]],
        }
        if end < len(ids):
            page["nextRecordsUrl"] = f"/services/data/v62.0/query/{entity}-{end}"
        return JSONResponse(page)


@dataclass
class Pipedrive(Crm):
    """v2, and v1 for what it lacks."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by resource, by id

    def proof(self, request: Request) -> str:
        """A configured token has a header of its own."""
        return request.headers.get("x-api-token", super().proof(request))

    def reply(self, asked: Asked) -> Response:
        """Some by id, all by cursor, one alone."""
        *_, version, name = asked.path.split("/")[:4]
        known = self.objects.get(f"{version}/{name}", {})
        single = asked.path.split("/")[4:]
        if single:
            found = known.get(single[0])
            if found is None:
                return JSONResponse({"success": False, "error": "not found"}, 404)
            return JSONResponse({"success": True, "data": found})
        if "ids" in asked.query:
            wanted = asked.query["ids"].split(",")
            data = [known[number] for number in wanted if number in known]
            return JSONResponse({"success": True, "data": data, "additional_data": {}})
        start = int(asked.query.get("cursor", "0"))
        ids = sorted(known)[start : start + self.page_size]
        more = start + self.page_size < len(known)
        following = str(start + self.page_size) if more else None
        data = [known[number] for number in ids]
        page = {"success": True, "data": data, "additional_data": {"next_cursor": following}}
        return JSONResponse(page)


@dataclass
class Close(Crm):
    """API v1."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by resource, by id

    def proof(self, request: Request) -> str:
        """A key is the user of HTTP Basic."""
        given = request.headers.get("authorization", "")
        if given.startswith("Basic "):
            return base64.b64decode(given.removeprefix("Basic ")).decode().removesuffix(":")
        return super().proof(request)

    def reply(self, asked: Asked) -> Response:
        """One by id, all by skipping."""
        path = asked.path.removeprefix("/api/v1/").strip("/")
        if path in self.objects:
            start = int(asked.query["_skip"])
            limit = min(int(asked.query["_limit"]), self.page_size)
            found = [self.objects[path][number] for number in sorted(self.objects[path])]
            page = found[start : start + limit]
            return JSONResponse({"data": page, "has_more": start + limit < len(found)})
        resource, _, number = path.rpartition("/")
        one = self.objects.get(resource, {}).get(number)
        return JSONResponse({"error": "not found"}, 404) if one is None else JSONResponse(one)


@asynccontextmanager
async def serving(crm: Crm) -> AsyncIterator[str]:
    """The stand-in on a free port of loopback; gives its address."""
    config = uvicorn.Config(
        crm.app(), host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        crm.url = f"http://127.0.0.1:{port}"
        yield crm.url
    finally:
        server.should_exit = True
        await task
