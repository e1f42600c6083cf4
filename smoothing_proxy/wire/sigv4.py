"""AWS Signature Version 4, verified: who signed this request, and is it the one that was signed?

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html (read 2026-11-21), for every
service but S3: the path is normalised and encoded once more. Only the Authorization header is read, no signed URL,
and the body has to be signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from smoothing_proxy.wire.base import Fault, HttpRequest, RequestFault

__all__ = ["ALGORITHM", "MAX_SKEW", "Authorization", "AwsFault", "authorization", "verify"]

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW = timedelta(minutes=15)
"""How far the client's clock may be from ours."""

_FIELDS = re.compile(
    rf"{ALGORITHM}\s+Credential=(?P<credential>[^\s,]+)\s*,\s*SignedHeaders=(?P<headers>[^\s,]+)\s*,"
    r"\s*Signature=(?P<signature>[0-9a-f]{64})\s*"
)
_MUST_BE_SIGNED = ("host", "x-amz-date")
_SIGNED_IF_SENT = ("x-amz-target", "x-amz-security-token", "x-amz-content-sha256")


class AwsFault(RequestFault):
    """A fault for which AWS has a word of its own. code: the `__type` of the error body."""

    def __init__(self, fault: Fault, code: str, message: str) -> None:
        super().__init__(fault, message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the Authorization header states.

    access_key: the key's id. date: YYYYMMDD. headers: names of the signed ones, as listed. signature: in hex.
    """

    access_key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """What the signing key is good for."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def authorization(request: HttpRequest) -> Authorization:
    """The request's Authorization header. Raises AwsFault (UNAUTHENTICATED) without a proper one."""
    header = request.headers.get("authorization", "")
    if not header:
        raise _unauthenticated("MissingAuthenticationTokenException", "the request has no Authorization header")
    fields = _FIELDS.fullmatch(header)
    credential = fields["credential"].rsplit("/", 4) if fields else []
    if fields is None or len(credential) != 5 or credential[4] != "aws4_request":
        raise _unauthenticated(
            "IncompleteSignatureException",
            f"the Authorization header is not '{ALGORITHM} Credential=KEY/DATE/REGION/SERVICE/aws4_request, "
            "SignedHeaders=..., Signature=...'",
        )
    key, date, region, service, _ = credential
    return Authorization(key, date, region, service, tuple(fields["headers"].split(";")), fields["signature"])


def verify(request: HttpRequest, secret: str, now: datetime, *, service: str) -> None:
    """Check that `secret` signed this very request for `service`, within MAX_SKEW of `now` (aware).

    The Host header has to be the one that the client saw, `request.target` the one on the wire.
    Raises AwsFault (UNAUTHENTICATED); the comparison takes the same time whatever the signature is.
    """
    claim = authorization(request)
    stamp = _checked_date(request, claim, now)
    if claim.service != service:
        raise _invalid(f"Credential should be scoped to correct service: {service!r}")
    _check_signed_headers(request, claim.headers)
    try:
        expected = _signature(request, claim, secret, stamp)
    except UnicodeEncodeError:
        raise _invalid("the request line or a signed header is no valid text") from None
    if not hmac.compare_digest(expected, claim.signature):
        raise _invalid("The request signature we calculated does not match the signature you provided.")


def _signature(request: HttpRequest, claim: Authorization, secret: str, stamp: str) -> str:
    canonical = _canonical_request(request, claim.headers)
    text = "\n".join([ALGORITHM, stamp, claim.scope, hashlib.sha256(canonical).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (claim.date, claim.region, claim.service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _canonical_request(request: HttpRequest, signed: tuple[str, ...]) -> bytes:
    path, _, query = _origin_form(request).partition("?")
    lines = [
        request.method.upper(),
        quote(_without_dots(path), safe="/~", errors="surrogateescape"),
        _canonical_query(query),
        *(f"{name}:{' '.join(request.headers[name].split())}" for name in signed),
        "",
        ";".join(signed),
        _payload_hash(request),
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _origin_form(request: HttpRequest) -> str:
    """Path and query as on the wire, without the scheme and host that a request through a proxy begins with."""
    target = request.target or quote(request.path)
    return re.sub(r"^https?://[^/?]*", "", target, flags=re.IGNORECASE)


def _without_dots(path: str) -> str:
    """The path by RFC 3986, 5.2.4, with slashes in a row made one; never empty."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    last = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + last


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{key}={value}" for key, value in sorted((_encoded(k), _encoded(v)) for k, _, v in pairs))


def _encoded(text: str) -> str:
    """Each octet in its one spelling. A plus is a space, as it is to whoever reads the query."""
    text = text.replace("+", " ")
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="-_.~")


def _payload_hash(request: HttpRequest) -> str:
    actual = hashlib.sha256(request.body).hexdigest()
    stated = request.headers.get("x-amz-content-sha256", actual)
    if stated != actual:
        raise _invalid("The provided x-amz-content-sha256 header does not match what was computed.")
    return actual


def _checked_date(request: HttpRequest, claim: Authorization, now: datetime) -> str:
    """The x-amz-date header, near `now` and of the credential's day."""
    stamp = request.headers.get("x-amz-date", "")
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _unauthenticated(
            "IncompleteSignatureException", "the x-amz-date header is missing or not like 20150830T123600Z"
        ) from None
    if stamp[:8] != claim.date:
        raise _invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
    if abs(now - signed_at) > MAX_SKEW:
        raise _invalid(
            f"Signature expired: {stamp} is more than {MAX_SKEW.seconds // 60} minutes from {now:%Y%m%dT%H%M%SZ}"
        )
    return stamp


def _check_signed_headers(request: HttpRequest, signed: tuple[str, ...]) -> None:
    needed = (*_MUST_BE_SIGNED, *(name for name in _SIGNED_IF_SENT if name in request.headers))
    unsigned = next((name for name in needed if name not in signed), None)
    if unsigned is not None:
        raise _invalid(f"the {unsigned} header must be signed")
    missing = next((name for name in signed if name not in request.headers), None)
    if missing is not None:
        raise _invalid(f"the header {missing!a} was signed but did not arrive")


def _invalid(message: str) -> AwsFault:
    return _unauthenticated("InvalidSignatureException", message)


def _unauthenticated(code: str, message: str) -> AwsFault:
    return AwsFault(Fault.UNAUTHENTICATED, code, message)
