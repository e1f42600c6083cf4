"""The backend with boto3's own chain against Rekognition on the loopback: what it sends, and what comes of it."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding as Encodings
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from smoothing_proxy.backends.aws_rekognition import AwsRekognition
from smoothing_proxy.backends.base import Backend
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
    MissingCredentialError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.types import Reply
from smoothing_proxy.wire import sigv4
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from tests.wire.aws_loopback import KEY, PUG, SECRET, WIRE, Answer, cut_short, loopback, rekognition, reset

COPY = encode(np.arange(80 * 90 * 3, dtype=np.uint8).reshape(80, 90, 3), Encoding("png"))


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "AWS_DEFAULT_REGION",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def made(endpoint: str = "", **options: Any) -> AwsRekognition:
    return AwsRekognition(**{"region": "eu-west-1", "endpoint": endpoint, **options})


def asked_once(backend: AwsRekognition, copy: EncodedImage = COPY) -> Reply:
    async def ask() -> Reply:
        try:
            (answer,) = await backend.classify([copy])
        finally:
            await backend.aclose()
        assert isinstance(answer, Reply)
        return answer

    return asyncio.run(ask())


def failure(backend: AwsRekognition, copy: EncodedImage = COPY) -> BackendError:
    with pytest.raises(BackendError) as failed:
        asked_once(backend, copy)
    assert failed.value.backend == "aws-rekognition"
    assert failed.value.__cause__ is failed.value.__context__ is None
    assert SECRET not in str(failed.value)
    return failed.value


def test_a_copy_is_sent_once_and_its_labels_come_back() -> None:
    with loopback() as (url, asked):
        backend = made(url, max_labels=3)
        assert isinstance(backend, Backend)
        reply = asked_once(backend)
    assert sorted(reply.labels, key=str) == sorted(
        [label for label in PUG.labels if label.name != "Sofa"], key=str
    )
    assert (reply.model_version, reply.request_id) == ("3.0", "id-1")
    (request,) = asked
    question = WIRE.read(request)
    assert question.images == (COPY.data,)
    assert (question.max_labels, question.min_confidence) == (3, 0.0)
    assert request.headers["amz-sdk-request"] == "attempt=1; max=1"


def by_boto3(url: str, copy: EncodedImage) -> None:
    """The same question by boto3 itself, once."""
    settings = Config(retries={"total_max_attempts": 1}, user_agent="smoothing-proxy")
    client = boto3.Session(region_name="eu-west-1").client("rekognition", endpoint_url=url, config=settings)
    client.detect_labels(Image={"Bytes": copy.data}, MinConfidence=0, MaxLabels=100)
    client.close()


OF_A_MOMENT = ("authorization", "x-amz-date", "amz-sdk-invocation-id")
OUR_OWN = ("user-agent", "accept", "accept-encoding", "x-amz-content-sha256")


@pytest.mark.parametrize("path", ["", "/", "/proxy/aws", "/a//b/", "/with%20space/tilde~/plus+at@"])
@pytest.mark.parametrize("token", ["", "session/token+="])
def test_what_is_sent_is_what_boto3_sends(path: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    with loopback() as (url, asked):
        assert asked_once(made(url + path)).labels
        by_boto3(url + path, COPY)
    ours, theirs = asked
    assert (ours.body, ours.path) == (theirs.body, theirs.path)
    assert ours.headers.get("x-amz-security-token", "") == token
    left_out = {*OF_A_MOMENT, *OUR_OWN}
    assert {k: v for k, v in ours.headers.items() if k not in left_out} == {
        k: v for k, v in theirs.headers.items() if k not in left_out
    }
    signed = {*sigv4.authorization(theirs).headers, "x-amz-content-sha256"}
    assert set(sigv4.authorization(ours).headers) == signed


def test_nothing_is_sent_before_the_first_copy() -> None:
    with loopback() as (url, asked):
        made(url)
    assert asked == []


@pytest.mark.parametrize(
    ("switch", "url"),
    [
        ("", "https://rekognition.eu-west-1.amazonaws.com/"),
        ("AWS_USE_FIPS_ENDPOINT", "https://rekognition-fips.us-east-1.amazonaws.com/"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "https://rekognition.eu-west-1.api.aws/"),
    ],
)
def test_the_endpoint_is_the_one_that_boto3_finds(switch: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if switch:
        monkeypatch.setenv(switch, "true")
    backend = made(region="us-east-1" if "us-east-1" in url else "eu-west-1")
    assert backend._account.url == url
    assert "endpoint" not in backend.fingerprint


def test_a_user_in_the_endpoint_is_not_sent() -> None:
    with loopback() as (url, asked):
        assert asked_once(made(url.replace("//", "//user:word@"))).labels
    assert asked[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


def test_the_settings_are_what_the_protocol_shows() -> None:
    backend = made(concurrency=3, encoding="jpeg:90", price_usd_per_1000=0.8, price_as_of="2026-01-01")
    assert (backend.name, backend.batch_size, backend.concurrency) == ("aws-rekognition", 1, 3)
    assert (backend.price_usd, backend.price_as_of) == (0.0008, "2026-01-01")
    assert backend.encoding == Encoding("jpeg", 90, 80, 10_000, WIRE.limits.image_bytes)
    assert made().encoding == Encoding("png", 95, 80, 10_000, WIRE.limits.image_bytes)
    assert made().price_usd == 0.001


def test_the_fingerprint_names_the_endpoint_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"name": "aws-rekognition", "region": "eu-west-1", "max_labels": "100"}
    assert made().fingerprint == plain
    assert made("https://user:word@gateway:8443/aws?key=1").fingerprint == {
        **plain,
        "endpoint": "https://gateway:8443/aws",
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL_REKOGNITION", "http://127.0.0.1:1")
    assert made().fingerprint["endpoint"] == "http://127.0.0.1:1"


def test_the_endpoint_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback() as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL_REKOGNITION", url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        assert asked_once(made(region=None)).labels
    assert len(asked) == 1


def test_a_profile_brings_region_and_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-2\n")
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    with loopback() as (url, _):
        backend = made(url, region=None, profile="lab")
        assert backend.fingerprint["region"] == "eu-west-2"
        assert asked_once(backend).labels


FAULTS: list[tuple[Fault, type[BackendError], bool, str]] = [
    (Fault.THROTTLED, RateLimitedError, False, "lower the rate"),
    (Fault.INTERNAL, BackendUnavailableError, True, "may have been billed"),
    (Fault.UNAVAILABLE, BackendUnavailableError, False, "try again later"),
    (Fault.TIMEOUT, BackendUnavailableError, True, "may have been billed"),
    (Fault.FORBIDDEN, AuthenticationError, False, "rekognition:DetectLabels"),
    (Fault.UNAUTHENTICATED, AuthenticationError, False, "check the key"),
    (Fault.BAD_IMAGE, RequestRejectedError, False, "PNG or JPEG"),
    (Fault.QUOTA, QuotaExceededError, False, "raise the account's quota"),
]


@pytest.mark.parametrize(("fault", "kind", "maybe_billed", "advice"), FAULTS)
def test_an_error_reply_is_an_error_after_one_send(
    fault: Fault, kind: type[BackendError], maybe_billed: bool, advice: str
) -> None:
    def answer(request: HttpRequest) -> HttpReply:
        return rekognition(request, RequestFault(fault, "why", retry_after_s=2.5))

    with loopback(answer) as (url, asked):
        error = failure(made(url))
    assert type(error) is kind
    assert error.maybe_billed is maybe_billed
    assert "why" in str(error)
    assert advice in str(error)
    if isinstance(error, RateLimitedError | BackendUnavailableError):
        assert error.retry_after == 2.5
    assert len(asked) == 1


def test_a_wrong_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with loopback() as (url, asked):
        assert "InvalidSignatureException (403)" in str(failure(made(url)))
    assert len(asked) == 1


def replying(body: bytes, status: int = 200, **headers: str) -> Answer:
    return lambda _: HttpReply(status, headers, body)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (lambda _: reset, BackendTimeoutError, "may have been billed"),
        (lambda _: cut_short, BackendTimeoutError, "DetectLabels in eu-west-1; it may have been billed"),
        (lambda _: lambda connection: connection.shutdown(socket.SHUT_RDWR), BackendTimeoutError, "billed"),
        (replying(b""), MalformedReplyError, "no JSON"),
        (replying(b"{}"), MalformedReplyError, "Labels is not a list"),
        (replying(b"[]"), MalformedReplyError, "not a JSON object"),
        (replying(b"<html>"), MalformedReplyError, "no JSON"),
        (replying(b"\xff\x00"), MalformedReplyError, "no JSON"),
        (replying(b'{"Labels": [7]}'), MalformedReplyError, "Labels is not a list of objects"),
        (replying(b'{"Labels": [{"Name": "a", "Confidence": NaN}]}'), MalformedReplyError, "Confidence"),
        (replying(b"[" * 100_000), MalformedReplyError, "no JSON"),
        (replying(b"", 201), MalformedReplyError, ""),
        (replying(b"<html>", 500), BackendUnavailableError, "500"),
        (replying(b"[]", 500), BackendUnavailableError, "500"),
        (replying(b'{"__type": 7}', 500), BackendUnavailableError, "500"),
        (replying(b"", 503), BackendUnavailableError, "503"),
        (replying(b"", 504), BackendTimeoutError, "504"),
        (replying(b"", 429), RateLimitedError, "429"),
        (replying(b"gone", 404), AuthenticationError, "what answers there is not Rekognition"),
        (replying(b"", 302, location="http://127.0.0.1:1/"), AuthenticationError, "not Rekognition"),
    ],
)
def test_what_is_no_answer_is_an_error_after_one_send(answer: Answer, kind: type[BackendError], said: str) -> None:
    with loopback(answer) as (url, asked):
        error = failure(made(url))
    assert type(error) is kind
    assert said in str(error)
    assert len(asked) == 1


def test_a_malformed_reply_is_kept() -> None:
    body = b'{"Labels": "dog"}'
    with loopback(replying(body)) as (url, _):
        error = failure(made(url))
    assert isinstance(error, MalformedReplyError)
    assert error.reply == body
    assert error.maybe_billed


def test_no_reply_in_time_may_have_been_billed() -> None:
    answered = threading.Event()

    def answer(request: HttpRequest) -> HttpReply:
        answered.wait(20)
        return rekognition(request)

    with loopback(answer) as (url, asked):
        error = failure(made(url, read_timeout_s=0.2))
        answered.set()
    assert type(error) is BackendTimeoutError
    assert len(asked) == 1


def test_nobody_there_is_not_billed() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = failure(made(f"http://127.0.0.1:{reserved.getsockname()[1]}"))
    assert type(error) is BackendUnavailableError
    assert not error.maybe_billed
    assert "check the network, the region and the endpoint" in str(error)


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        error = failure(made("https://rekognition.invalid"))
    assert type(error) is BackendUnavailableError
    assert not error.maybe_billed
    assert "HTTPS_PROXY" in str(error)


def test_a_server_without_tls_is_not_billed() -> None:
    with loopback() as (url, asked):
        error = failure(made(url.replace("http://", "https://")))
    assert type(error) is BackendUnavailableError
    assert not error.maybe_billed
    assert "check `verify` (or AWS_CA_BUNDLE)" in str(error)
    assert asked == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed but itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    address = x509.IPAddress(IPv4Address("127.0.0.1"))
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encodings.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "certificate.pem").write_bytes(signed.public_bytes(Encodings.PEM) + secret)
    return tmp_path / "certificate.pem"


def test_a_private_authority_is_trusted_when_it_is_named(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with loopback(tls=tls) as (url, asked):
        error = failure(made(url))
        assert asked_once(made(url, verify=str(certificate))).labels
    assert type(error) is BackendUnavailableError
    assert not error.maybe_billed
    assert "check `verify` (or AWS_CA_BUNDLE)" in str(error)
    assert len(asked) == 1


@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "ca_bundle"])
def test_the_authority_that_boto3_would_trust_is_trusted(
    where: str, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    if where.isupper():
        monkeypatch.setenv(where, str(certificate))
    else:
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {certificate}\n")
    with loopback(tls=tls) as (url, _):
        assert asked_once(made(url)).labels


def test_an_authority_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "absent.pem")
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE.*absent\.pem: no such file"):
        made()


NOISE = np.random.default_rng(7).integers(0, 256, (1400, 1400, 3), np.uint8)


@pytest.mark.parametrize(
    ("copy", "said"),
    [
        (encode(NOISE, Encoding("png")), 'Rekognition takes 5242880; `encoding = "jpeg:95"` would fit'),
        (EncodedImage(b"png", "png", 79, 100), "79x100 px; Rekognition takes 80 to 10000 px a side"),
        (EncodedImage(b"png", "png", 100, 10_001), "100x10001 px"),
        (encode(NOISE[:80, :80], Encoding("raw")), "'raw'; set `encoding"),
    ],
)
def test_what_cannot_be_sent_is_refused_before(copy: EncodedImage, said: str) -> None:
    with loopback() as (url, asked):
        error = failure(made(url), copy)
    assert type(error) is RequestRejectedError
    assert said in str(error)
    assert error.attempts == 0
    assert asked == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"region": None}, "region: missing; set it, or AWS_DEFAULT_REGION"),
        ({"region": "eu-west-9"}, "no Rekognition in 'eu-west-9'; did you mean 'eu-west-"),
        ({"region": "eu north"}, "eu north"),
        ({"profile": "absent"}, "absent"),
        ({"endpoint": "gateway"}, "gateway"),
        ({"max_labels": 0}, "max_labels is 0; expected 1 or more"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"read_timeout_s": 0.0}, "read_timeout_s is 0.0; expected seconds, more than 0"),
        ({"connect_timeout_s": float("inf")}, "connect_timeout_s is inf"),
        ({"encoding": "raw"}, "encoding is 'raw'; expected 'png', 'jpeg' or 'jpeg:95'"),
        ({"encoding": "webp"}, "webp"),
        ({"verify": "absent.pem"}, "verify: absent.pem: no such file"),
        ({"price_usd_per_1000": -1.0}, "price_usd_per_1000"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        made(**options)


def test_a_region_that_boto3_does_not_know_is_fine_with_an_endpoint() -> None:
    assert made("http://127.0.0.1:1", region="eu-west-9").fingerprint["region"] == "eu-west-9"


def test_no_credentials_are_an_error_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(MissingCredentialError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile"):
        made()


@pytest.mark.parametrize(
    ("config", "credentials"),
    [
        ("", f"[lab]\naws_access_key_id = {KEY}\n"),
        (f'[profile lab]\ncredential_process = {sys.executable} -c "raise SystemExit(3)"\n', ""),
    ],
)
def test_half_of_a_credential_is_an_error(
    config: str, credentials: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text(config)
    (tmp_path / "credentials").write_text(credentials)
    with pytest.raises(MissingCredentialError):
        made(profile="lab")


EXPIRING = """
import datetime, json, pathlib, sys
asked = pathlib.Path(sys.argv[1])
if asked.exists():
    raise SystemExit(3)
asked.touch()
end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
print(json.dumps({"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S", "Expiration": end.isoformat()}))
"""


def test_a_credential_that_is_not_renewed_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    program, asked_before = tmp_path / "login.py", tmp_path / "asked"
    program.write_text(EXPIRING)
    (tmp_path / "config").write_text(
        f"[profile lab]\ncredential_process = {sys.executable} {program} {asked_before}\n"
    )
    with loopback() as (url, asked):
        backend = made(url, profile="lab")
        credentials = backend._account.credentials
        credentials._expiry_time -= timedelta(hours=1)
        error = failure(backend)
    assert type(error) is AuthenticationError
    assert "custom-process" in str(error)
    assert asked == []


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
REFUSED = "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>why</Message></Error></ErrorResponse>"


def assumed(key: str = KEY, minutes: int = 60) -> HttpReply:
    """The role's credentials, good for so long. botocore renews those that have ten minutes left."""
    end = datetime.now(UTC) + timedelta(minutes=minutes)
    return HttpReply(200, {"content-type": "text/xml"}, ASSUMED.format(key=key, secret=SECRET, end=end).encode())


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[HttpReply]]:
    """The answers that the service of roles will give, one after another; the profile `lab` has to ask it."""
    answers = [assumed("AKIDFIRST", minutes=5)]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile lab]\nrole_arn = arn:aws:iam::1:role/lab\nsource_profile = base\n")
    (tmp_path / "credentials").write_text("[base]\naws_access_key_id = A\naws_secret_access_key = S\n")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with loopback(lambda _: answers.pop(0)) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        yield answers


def test_a_roles_credentials_are_renewed_on_the_way(role: list[HttpReply]) -> None:
    with loopback() as (url, asked):
        backend = made(url, profile="lab")
        role.append(assumed())
        assert asked_once(backend).labels
    assert (WIRE.key(asked[0]), role) == (KEY, [])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HttpReply(403, {}, REFUSED.format("AccessDenied").encode()), AuthenticationError),
        (HttpReply(400, {}, REFUSED.format("ExpiredTokenException").encode()), AuthenticationError),
        (HttpReply(400, {}, REFUSED.format("Throttling").encode()), BackendUnavailableError),
        (HttpReply(500, {}, REFUSED.format("InternalFailure").encode()), BackendUnavailableError),
        (HttpReply(503, {}, b""), BackendUnavailableError),
    ],
)
def test_a_role_that_is_not_renewed_is_not_billed(
    answer: HttpReply, kind: type[BackendError], role: list[HttpReply]
) -> None:
    with loopback() as (url, asked):
        backend = made(url, profile="lab")
        role.append(answer)
        error = failure(backend)
    assert type(error) is kind
    assert not error.maybe_billed
    assert asked == []


def test_no_more_calls_are_in_flight_than_the_concurrency_allows() -> None:
    lock, both = threading.Lock(), threading.Barrier(2)
    now, most = 0, 0

    def answer(request: HttpRequest) -> HttpReply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(20)
        with lock:
            now -= 1
        return rekognition(request)

    async def ask_all(backend: AwsRekognition) -> list[Any]:
        answers = await asyncio.gather(*(backend.classify([COPY]) for _ in range(6)))
        await backend.aclose()
        return answers

    with loopback(answer) as (url, asked):
        answers = asyncio.run(ask_all(made(url, concurrency=2)))
    assert (len(answers), len(asked), most) == (6, 6, 2)


def test_after_closing_nothing_is_sent() -> None:
    async def close_twice(backend: AwsRekognition) -> None:
        await backend.classify([COPY])
        await backend.aclose()
        await backend.aclose()
        await backend.classify([COPY])

    with loopback() as (url, asked), pytest.raises(BackendError, match="was closed"):
        asyncio.run(close_twice(made(url)))
    assert len(asked) == 1
