from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.wire import sigv4
from smoothing_proxy.wire.base import Fault, HttpRequest
from smoothing_proxy.wire.sigv4 import AwsFault

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BODY = b'{"Image": {"Bytes": "aGVsbG8="}}'
BODY_SHA256 = hashlib.sha256(BODY).hexdigest()
TARGET = {"X-Amz-Target": "RekognitionService.DetectLabels"}


def signed(
    url: str = "https://rekognition.eu-west-1.amazonaws.com/",
    *,
    body: bytes = BODY,
    headers: dict[str, str] | None = None,
    params: list[tuple[str, str]] | None = None,
    token: str | None = None,
    method: str = "POST",
) -> HttpRequest:
    """A request that botocore signs now, as it arrives."""
    request: Any = AWSRequest(method, url, headers=headers or {}, data=body, params=params)
    botocore.auth.SigV4Auth(Credentials("AKID/1", SECRET, token), "rekognition", "eu-west-1").add_auth(request)
    parts = urlsplit(request.prepare().url)
    arrived = {name.lower(): value for name, value in request.headers.items()}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HttpRequest(method, parts.path, {"host": parts.netloc, **arrived}, body, target=target)


def verify(request: HttpRequest, secret: str = SECRET, now: datetime | None = None) -> None:
    sigv4.verify(request, secret, now or datetime.now(UTC), service="rekognition")


def refusal(request: HttpRequest, secret: str = SECRET, now: datetime | None = None) -> str:
    with pytest.raises(AwsFault) as refused:
        verify(request, secret, now)
    assert refused.value.fault is Fault.UNAUTHENTICATED
    return f"{refused.value.code}: {refused.value.message}"


def changed(request: HttpRequest, **headers: str) -> HttpRequest:
    return replace(request, headers={**request.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})


@pytest.mark.parametrize(
    "request_",
    [
        signed(),
        signed(body=b""),
        signed(body=b"", method="GET"),
        signed("http://127.0.0.1:8080"),
        signed("http://127.0.0.1:8080/proxy/aws/"),
        signed("http://127.0.0.1:8080/a//b/./c/../d/"),
        signed("http://127.0.0.1:8080/.."),
        signed("http://127.0.0.1:8080/with%20space/slash%2Fslash/%E1%88%B4/tilde~/plus+at@"),
        signed("http://127.0.0.1:8080/?z=1&a=2&a=1&A=0"),
        signed("http://127.0.0.1:8080/?empty=&b=%2F%20%E1%88%B4~"),
        signed("http://127.0.0.1:8080/", params=[("b c", "1/2"), ("b c", "1 2"), ("ሴ", "="), ("p+", "+&")]),
        signed(headers={"X-Amz-Target": "RekognitionService.DetectLabels", "Content-Type": "application/json"}),
        signed(headers={"My-Header": "  two   spaces,\t tab  "}),
        signed(headers={"User-Agent": "not signed", "Connection": "keep-alive"}),
        signed(token="session/token+="),
        signed(headers={"X-Amz-Content-SHA256": BODY_SHA256}),
        replace(signed("http://127.0.0.1:8080/a"), target="http://127.0.0.1:8080/a"),
    ],
)
def test_what_botocore_signs_is_verified(request_: HttpRequest) -> None:
    assert sigv4.authorization(request_).access_key == "AKID/1"
    verify(request_)


@pytest.mark.parametrize(
    ("method", "target", "headers", "service", "signature"),
    [
        ("GET", "/", {}, "service", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            {},
            "service",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        ("GET", "/ሴ", {}, "service", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        (
            "GET",
            "/?Action=ListUsers&Version=2010-05-08",
            {
                "content-type": "application/x-www-form-urlencoded; charset=utf-8",
                "host": "iam.amazonaws.com",
            },
            "iam",
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        ),
    ],
)
def test_the_signatures_that_aws_documents_are_verified(
    method: str, target: str, headers: dict[str, str], service: str, signature: str
) -> None:
    sent = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", **headers}
    authorization = (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, "
        f"SignedHeaders={';'.join(sorted(sent))}, Signature={signature}"
    )
    request = HttpRequest(method, "/", {**sent, "authorization": authorization}, target=target)
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    sigv4.verify(request, secret, datetime(2015, 8, 30, 12, 36, tzinfo=UTC), service=service)


TAMPERED: list[tuple[str, Callable[[HttpRequest], HttpRequest]]] = [
    ("body", lambda request: replace(request, body=BODY + b" ")),
    ("no body", lambda request: replace(request, body=b"")),
    ("method", lambda request: replace(request, method="PUT")),
    ("path", lambda request: replace(request, target="/b?x=1&y=2")),
    ("query", lambda request: replace(request, target="/a?x=1&y=3")),
    ("query cut", lambda request: replace(request, target="/a?x=1")),
    ("query merged", lambda request: replace(request, target="/a?x=1%26y=2")),
    ("host", lambda request: changed(request, host="127.0.0.1:8081")),
    ("operation", lambda request: changed(request, x_amz_target="RekognitionService.DetectFaces")),
    ("token", lambda request: changed(request, x_amz_security_token="another")),
    ("signature", lambda request: reauthorized(request, lambda a: a[:-1] + ("0" if a[-1] != "0" else "1"))),
    ("region", lambda request: reauthorized(request, lambda a: a.replace("eu-west-1", "us-east-1"))),
    ("surrogate in the path", lambda request: replace(request, target="/a\ud800")),
    ("surrogate in a header", lambda request: changed(request, host="\ud800")),
    ("stated hash", lambda request: changed(request, x_amz_content_sha256="0" * 64)),
    ("unsigned payload", lambda request: changed(request, x_amz_content_sha256="UNSIGNED-PAYLOAD")),
]


def reauthorized(request: HttpRequest, change: Callable[[str], str]) -> HttpRequest:
    return changed(request, authorization=change(request.headers["authorization"]))


@pytest.mark.parametrize(("what", "tamper"), TAMPERED, ids=[what for what, _ in TAMPERED])
def test_what_was_changed_on_the_way_is_refused(what: str, tamper: Callable[[HttpRequest], HttpRequest]) -> None:
    stated = {"X-Amz-Content-SHA256": BODY_SHA256} if what in ("stated hash", "unsigned payload") else {}
    request = signed("http://127.0.0.1:8080/a?x=1&y=2", headers={**TARGET, **stated}, token="session")
    verify(request)
    assert refusal(tamper(request)).startswith("InvalidSignatureException: ")


def test_another_secret_is_refused() -> None:
    assert "does not match the signature you provided" in refusal(signed(), SECRET[:-1])
    assert "does not match the signature you provided" in refusal(signed(), "")


@pytest.mark.parametrize(("minutes", "good"), [(-14, True), (14, True), (-16, False), (16, False)])
def test_a_signature_is_good_for_a_quarter_of_an_hour(minutes: int, good: bool) -> None:
    request, now = signed(), datetime.now(UTC) + timedelta(minutes=minutes)
    if good:
        verify(request, now=now)
    else:
        assert refusal(request, now=now).startswith("InvalidSignatureException: Signature expired: ")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"authorization": ""}, "MissingAuthenticationTokenException: "),
        ({"authorization": "Bearer token"}, "IncompleteSignatureException: "),
        ({"authorization": "AWS4-HMAC-SHA256"}, "IncompleteSignatureException: "),
        (
            {"authorization": f"AWS4-HMAC-SHA256 Credential=A/B, SignedHeaders=host, Signature={'0' * 64}"},
            "IncompleteSignatureException: ",
        ),
        ({"x_amz_date": ""}, "IncompleteSignatureException: the x-amz-date header"),
        ({"x_amz_date": "2015-08-30"}, "IncompleteSignatureException: the x-amz-date header"),
        ({"x_amz_date": "20150830T123600Z"}, "InvalidSignatureException: Date in Credential scope"),
        ({"x_amz_target": "added"}, "InvalidSignatureException: the x-amz-target header must be signed"),
        ({"x_amz_security_token": "added"}, "InvalidSignatureException: the x-amz-security-token header must be"),
    ],
)
def test_an_improper_signature_is_refused(headers: dict[str, str], said: str) -> None:
    assert refusal(changed(signed(), **headers)).startswith(said)


@pytest.mark.parametrize("name", ["host", "x-amz-date"])
def test_host_and_date_have_to_be_signed(name: str) -> None:
    request = reauthorized(signed(), lambda a: a.replace(f"{name};", "").replace(f";{name}", ""))
    assert refusal(request) == f"InvalidSignatureException: the {name} header must be signed"


def test_a_signed_header_that_is_gone_is_refused() -> None:
    request = signed(headers={"My-Header": "1"})
    without = {name: value for name, value in request.headers.items() if name != "my-header"}
    assert "'my-header' was signed but did not arrive" in refusal(replace(request, headers=without))


def test_a_key_is_good_for_its_service_only() -> None:
    with pytest.raises(AwsFault, match="correct service: 's3'"):
        sigv4.verify(signed(), SECRET, datetime.now(UTC), service="s3")


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#%"), max_size=12)


@given(st.lists(st.text(max_size=5)), st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))), PRINTABLE)
def test_any_path_query_and_header_that_botocore_signs_is_verified(
    path: list[str], query: list[tuple[str, str]], header: str
) -> None:
    url = "http://127.0.0.1:8080/" + "/".join(quote(segment, safe="") for segment in path)
    verify(signed(url, params=query, headers={"My-Header": header}))


@given(st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_whatever_arrives_is_verified_or_refused(
    authorization: str, target: str, host: str, more: dict[str, str]
) -> None:
    good = signed()
    for header in (authorization, good.headers["authorization"]):
        headers = {**good.headers, **more, "host": host, "authorization": header}
        with pytest.raises(AwsFault):
            verify(replace(good, target=target, headers=headers))
