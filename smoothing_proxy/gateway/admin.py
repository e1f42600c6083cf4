"""Keys over HTTP, for whoever holds the admin key: what `smoothing-proxy keys` does, by the same functions.

GET   /v1/admin/keys                  POST  /v1/admin/keys
GET   /v1/admin/keys/{key}            PATCH /v1/admin/keys/{key}
POST  /v1/admin/keys/{key}/rotate     and   /disable, /enable
GET   /v1/admin/spend?key=&period=

{key} is an id, or a name. A customer's key opens none of it, and the admin key asks for no picture.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeAlias, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.admin_bodies import (
    KeyList,
    NewKeyRequest,
    ShownKey,
    ShownSecret,
    SpendReport,
    TermsRequest,
    read_body,
)
from smoothing_proxy.gateway.admin_keys import UnknownKeyError, find_key, spend_of, terms_with
from smoothing_proxy.gateway.exchange import Exchange
from smoothing_proxy.gateway.requests import body_of
from smoothing_proxy.ledger.gateway.nouns import Period, VirtualKey
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["Admin"]

BODY_BYTES = 2**16

_Answer: TypeAlias = Callable[["Admin", Request, Exchange], Awaitable[Response]]


class Admin:
    """store: whose keys they are; it stays its owner's to close. key: of AdminTable.key.

    body_timeout_s: for a request to arrive.
    """

    def __init__(self, store: GatewayStore, key: str, *, body_timeout_s: float = 30.0) -> None:
        self._store = store
        self._digest = _digest(key)
        self._body_timeout_s = body_timeout_s

    async def answer(self, request: Request, exchange: Exchange) -> Response:
        """Who may not ask is refused before anything is read or looked up. Raises RequestFault."""
        self._check(request.headers.get("authorization", ""))
        asked = f"{request.method} /{request.path_params['path']}"
        for pattern, answer in _OPERATIONS.items():
            found = re.fullmatch(pattern, asked)
            if found is not None:
                request.path_params.update(found.groupdict())
                return await self._told(answer, request, exchange)
        raise RequestFault(Fault.UNKNOWN_OPERATION, "there is no such operation on keys: see /openapi.json")

    def _check(self, authorization: str) -> None:
        """In the same time, whatever was sent: what is compared are digests."""
        scheme, _, token = authorization.partition(" ")
        right = hmac.compare_digest(_digest(token.strip()), self._digest)
        if scheme.lower() != "bearer" or not right:
            raise RequestFault(Fault.UNAUTHENTICATED, "the admin key is missing, or is another one")

    async def _told(self, answer: _Answer, request: Request, exchange: Exchange) -> Response:
        try:
            return await answer(self, request, exchange)
        except UnknownKeyError as error:
            raise RequestFault(Fault.UNKNOWN_OPERATION, str(error)) from None
        except ConfigError as error:
            raise RequestFault(Fault.BAD_REQUEST, str(error)) from None

    async def list(self, request: Request, exchange: Exchange) -> Response:
        """Every key."""
        keys = tuple(map(_shown, await self._store.keys()))
        return _json(KeyList(keys=keys))

    async def create(self, request: Request, exchange: Exchange) -> Response:
        """A new key, with its secret."""
        asked = read_body(NewKeyRequest, await self._body(request, exchange))
        terms = terms_with(asked.model_dump(exclude={"name", "vendor"}, exclude_unset=True))
        return _secret(*await self._store.create_key(asked.name, asked.vendor, terms), status=201)

    async def read(self, request: Request, exchange: Exchange) -> Response:
        """One key."""
        return _json(_shown(await self._key(request)))

    async def update(self, request: Request, exchange: Exchange) -> Response:
        """Other terms, from its next request on."""
        asked = read_body(TermsRequest, await self._body(request, exchange))
        key = await self._key(request)
        terms = terms_with(asked.model_dump(exclude_unset=True), key)
        return _json(_shown(await self._store.update_key(key.id, terms)))

    async def rotate(self, request: Request, exchange: Exchange) -> Response:
        """A new secret; the old one is refused from now on."""
        return _secret(*await self._store.rotate_key((await self._key(request)).id))

    async def disable(self, request: Request, exchange: Exchange) -> Response:
        """Refuse its next request, on every replica; or let it in again."""
        disabled = request.path_params["what"] == "disable"
        key = await self._key(request)
        return _json(_shown(await self._store.disable_key(key.id, disabled=disabled)))

    async def spend(self, request: Request, exchange: Exchange) -> Response:
        """What one key, or every key, has spent."""
        unknown = set(request.query_params) - {"key", "period"}
        if unknown:
            raise RequestFault(Fault.BAD_REQUEST, "only key and period may be asked for")
        rows = await spend_of(self._store, request.query_params.get("key"), _period(request))
        spent = [{"id": key.id, "name": key.name, "period": span, **asdict(one)} for key, span, one in rows]
        return _json(SpendReport.model_validate({"spend": spent}))

    async def _key(self, request: Request) -> VirtualKey:
        return await find_key(self._store, request.path_params["key"])

    async def _body(self, request: Request, exchange: Exchange) -> bytes:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise RequestFault(Fault.BAD_REQUEST, "the content type has to be application/json")
        return await body_of(request, BODY_BYTES, self._body_timeout_s, exchange.hold)


_OPERATIONS: dict[str, _Answer] = {
    "GET /keys": Admin.list,
    "POST /keys": Admin.create,
    "GET /keys/(?P<key>[^/]+)": Admin.read,
    "PATCH /keys/(?P<key>[^/]+)": Admin.update,
    "POST /keys/(?P<key>[^/]+)/rotate": Admin.rotate,
    "POST /keys/(?P<key>[^/]+)/(?P<what>disable|enable)": Admin.disable,
    "GET /spend": Admin.spend,
}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _period(request: Request) -> Period | None:
    asked = request.query_params.get("period")
    if asked is None:
        return None
    for period in get_args(Period):
        if asked == period:
            return period  # type: ignore[no-any-return]
    raise RequestFault(Fault.BAD_REQUEST, f"period: expected one of {', '.join(get_args(Period))}")


def _shown(key: VirtualKey) -> ShownKey:
    return ShownKey.model_validate(asdict(key))


def _secret(key: VirtualKey, secret: str, *, status: int = 200) -> Response:
    return _json(ShownSecret.model_validate({**asdict(key), "secret": secret}), status)


def _json(told: Any, status: int = 200) -> Response:
    return JSONResponse(told.model_dump(), status)
