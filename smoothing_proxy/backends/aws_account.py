"""Who asks Rekognition, and where: as boto3 finds it out, and signed by botocore.

Of boto3 this takes all but the sending, which costs it a millisecond of processor time: credentials (environment,
profiles, SSO, roles) and their renewal, region, endpoint (AWS_ENDPOINT_URL_REKOGNITION, FIPS, dual stack) and the
signature. Events are botocore's public way in: `before-sign` hands out the request as boto3 would sign it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, final
from urllib.parse import urlsplit

import anyio.to_thread
import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from yarl import URL

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    ConfigError,
    MissingCredentialError,
    nearest,
)
from smoothing_proxy.wire.aws import error_of

__all__ = ["AwsAccount"]

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (`profile` or AWS_PROFILE), and this machine's role"
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.MetadataRetrievalError,
    boto.SSOError,
    getattr(boto, "LoginError", boto.SSOError),  # newer than the oldest boto3 that will do
    boto.RefreshWithMFAUnsupportedError,
)
_STATED = ("host", "x-amz-content-sha256")
_UNSIGNED = {"User-Agent": "smoothing-proxy", "amz-sdk-request": "attempt=1; max=1"}


@final
class AwsAccount:
    """The account and the place that DetectLabels is asked of; nothing is sent to Rekognition from here.

    name: of the backend, for messages. region, profile, endpoint: as AwsRekognition has them.
    url: where requests go. own_endpoint: the same where it is not the region's own, without user, password and
    query; else "". ca_bundle: the file of certificates that the environment or ~/.aws names, "" for none.

    Raises ConfigError for what cannot work, and MissingCredentialError where the chain finds nothing.
    """

    def __init__(self, name: str, *, region: str | None, profile: str | None, endpoint: str) -> None:
        self._name = name
        settings = botocore.session.get_session()
        session = _session(name, settings, region, profile)
        self.credentials = _credentials(name, session)
        client = _client(name, session, endpoint)
        self.region = str(client.meta.region_name)
        self.own_endpoint = _own_endpoint(client.meta)
        self.ca_bundle = _ca_bundle(name, settings)
        request, self._signing = _as_signed(name, client)
        self.url = _without_user(request.url)
        self._host = URL(self.url).host_port_subcomponent or ""  # no port where it is the usual one
        self._headers = {key: request.headers[key] for key in ("X-Amz-Target", "Content-Type")}

    async def signed(self, body: bytes, headers: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """The headers of one POST of this body to `url`, signed now. headers: of another operation.

        Raises AuthenticationError or BackendUnavailableError when credentials cannot be renewed.
        """
        # Host and hash are stated since finding them out anew takes botocore half of all its time.
        given = {key: value for key, value in (headers or self._headers).items() if key.lower() not in _STATED}
        stated = {"Host": self._host, "X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}
        request = AWSRequest("POST", self.url, headers={**given, **stated})
        (await self._auth()).add_auth(request)
        return {**dict(request.headers.items()), **_UNSIGNED, "amz-sdk-invocation-id": str(uuid.uuid4())}

    async def _auth(self) -> Any:
        """A signer with the credentials of this moment."""
        if not self._renewal_is_due():
            return self._signer()
        try:
            return await anyio.to_thread.run_sync(self._signer)  # asks a vendor or runs a program
        except (boto.BotoCoreError, boto.ClientError, RuntimeError) as error:
            failure = self._failure(error)
        raise failure

    def _renewal_is_due(self) -> bool:
        refresh_needed = getattr(self.credentials, "refresh_needed", None)
        return refresh_needed is not None and bool(refresh_needed())

    def _signer(self) -> Any:
        signing = self._signing
        return signing["request_signer"].get_auth_instance(
            signing["signing_name"], signing["region_name"], signing["signature_version"]
        )

    def _failure(self, error: Exception) -> BackendError:
        """Of renewed credentials. Nothing was sent to Rekognition, so nothing was billed."""
        text = f"{self._name}: {str(error)[:500]}"
        if isinstance(error, _NO_CREDENTIALS):
            return AuthenticationError(f"{text}; looked for {_CREDENTIALS}", backend=self._name)
        if isinstance(error, RuntimeError) or _is_refused(error, self._name):
            return AuthenticationError(text, backend=self._name)
        return BackendUnavailableError(f"{text}; the credentials could not be renewed", backend=self._name)


def _is_refused(error: Exception, name: str) -> bool:
    """Whether another service of AWS says that these credentials are good for nothing."""
    if not isinstance(error, boto.ClientError):
        return False
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return isinstance(error_of(code, "", status, None, name), AuthenticationError)


def _session(name: str, settings: Any, region: str | None, profile: str | None) -> Any:
    try:
        session = boto3.Session(botocore_session=settings, region_name=region, profile_name=profile)
    except boto.BotoCoreError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not session.region_name:
        raise ConfigError(f"{name}: region: missing; set it, or AWS_DEFAULT_REGION, to one like 'eu-west-1'")
    return session


def _credentials(name: str, session: Any) -> Any:
    """Found and, where that is to be done, fetched."""
    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
    except (boto.BotoCoreError, boto.ClientError) as error:
        raise MissingCredentialError(f"{name}: {error}; looked for {_CREDENTIALS}") from None
    if credentials is None:
        raise MissingCredentialError(f"{name}: no credentials; looked for {_CREDENTIALS}")
    return credentials


def _client(name: str, session: Any, endpoint: str) -> Any:
    never_twice = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    try:
        client = session.client("rekognition", endpoint_url=endpoint or None, config=never_twice)
    except (boto.BotoCoreError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from None
    region = session.region_name
    known = [
        known_region
        for partition in session.get_available_partitions()
        for known_region in session.get_available_regions("rekognition", partition_name=partition)
    ]
    if region not in known and not _own_endpoint(client.meta):
        hint = nearest(region, known)
        raise ConfigError(
            f"{name}: region: boto3 {boto3.__version__} knows no Rekognition in {region!r}{hint}; "
            "set `endpoint` if there is one"
        )
    return client


class _AboutToSign(Exception):  # noqa: N818 (how a call of boto3's ends before anything is sent)
    def __init__(self, request: Any, signing: Mapping[str, Any]) -> None:
        super().__init__()
        self.request = request
        self.signing = signing


def _as_signed(name: str, client: Any) -> tuple[Any, Mapping[str, Any]]:
    """A request of DetectLabels as boto3 would sign it, with what it would sign it by."""

    def stop(request: Any, **signing: Any) -> NoReturn:
        raise _AboutToSign(request, signing)

    client.meta.events.register("before-sign.rekognition.DetectLabels", stop)
    try:
        client.detect_labels(Image={"Bytes": b"-"})
    except _AboutToSign as reached:
        return reached.request, reached.signing
    except (boto.BotoCoreError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from None
    raise ConfigError(f"{name}: boto3 {boto3.__version__} signs no requests of Rekognition's")


def _own_endpoint(meta: Any) -> str:
    url = urlsplit(meta.endpoint_url)
    host = url.hostname or ""
    if host.startswith((f"rekognition.{meta.region_name}.", f"rekognition-fips.{meta.region_name}.")):
        return ""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{host}{port}{url.path}"


def _without_user(url: str) -> str:
    """Spelled as it will be sent, since that is what is signed. A user would become another Authorization."""
    return str(URL(url).with_user(None))


def _ca_bundle(name: str, settings: Any) -> str:
    """As boto3 looks for it."""
    path = settings.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", "")
    if path and not Path(path).is_file():
        where = "AWS_CA_BUNDLE (ca_bundle of the profile, REQUESTS_CA_BUNDLE)"
        raise ConfigError(f"{name}: {where}: {path}: no such file")
    return str(path)
