"""Pictures in listed buckets, read with the gateway's own credentials as the vendors' libraries find them.

S3 by boto3's GetObject: its chain of credentials, AWS_REGION, AWS_ENDPOINT_URL_S3. Google Cloud Storage by its
JSON API (https://cloud.google.com/storage/docs/json_api/v1/objects/get, read 2026-11-21) with the credentials that
google-auth finds; at STORAGE_EMULATOR_HOST, as Google's own libraries take it, without any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from threading import Lock
from typing import Any
from urllib.parse import quote

from smoothing_proxy.gateway.fetch_http import too_large
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.wire.base import FetchFault, Place

__all__ = ["BucketPictures", "object_in"]

PIECE = 2**16

GOOGLE = "https://storage.googleapis.com"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"

NO_OBJECT = "the picture could not be fetched: the bucket has no such object that may be read"
NO_BUCKET = "the picture could not be fetched: its bucket cannot be reached from here"

_logger = logging.getLogger(__name__)


def object_in(address: str) -> tuple[str, str] | None:
    """The bucket ("s3://NAME") and the name of an object; None for what leads nowhere, or out of the bucket."""
    scheme, _, rest = address.partition("://")
    bucket, _, name = rest.partition("/")
    steps = name.split("/")
    if scheme not in ("s3", "gs") or not name or not name.isprintable() or "." in steps or ".." in steps:
        return None
    return f"{scheme}://{bucket}", name


class BucketPictures:
    """Reads objects in threads of its own, so that a slow bucket keeps nobody else waiting.

    google: where Google Cloud Storage is.
    """

    def __init__(
        self, table: ReferencesTable, environ: Mapping[str, str] = os.environ, *, google: str = GOOGLE
    ) -> None:
        self._table = table
        self._endpoint = google
        self._environ = environ
        self._first = Lock()

    def allows(self, place: Place) -> bool:
        """Whether it is an object of a listed bucket."""
        found = object_in(place.address)
        return found is not None and found[0] in self._table.buckets

    async def fetch(self, place: Place, most_bytes: int) -> bytes:
        """The picture. Raises FetchFault."""
        found = object_in(place.address)
        if found is None or found[0] not in self._table.buckets:
            raise FetchFault("the picture is in no bucket from which pictures are fetched here")
        bucket, name = found
        read = self._of_s3 if bucket.startswith("s3:") else self._of_google
        until = time.monotonic() + self._table.timeout_s
        work = partial(read, bucket[5:], name, place.version, most_bytes, until)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._table.at_once, "smoothing-proxy-bucket")

    def _of_s3(self, bucket: str, name: str, version: str, most_bytes: int, until: float) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # type: ignore[import-untyped, unused-ignore]

        asked = {"Bucket": bucket, "Key": name, **({"VersionId": version} if version else {})}
        try:
            answer = self._s3.get_object(**asked)
            with answer["Body"] as body:
                return _read(body.read, answer.get("ContentLength") or 0, most_bytes, until)
        except ClientError as error:
            _logger.warning("no picture from s3://%s: %s", bucket, error.response.get("Error", {}).get("Code"))
            fault = FetchFault(NO_OBJECT)
        except (BotoCoreError, HTTPClientError, OSError) as error:
            _logger.error("no picture from s3://%s: %s", bucket, type(error).__name__)
            fault = FetchFault(NO_BUCKET)
        raise fault

    def _of_google(self, bucket: str, name: str, _: str, most_bytes: int, until: float) -> bytes:
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        path = f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media"
        try:
            session, endpoint = self._google
            headers, step_s = {"Accept-Encoding": "identity"}, self._table.timeout_s
            with session.get(
                endpoint + path, headers=headers, stream=True, timeout=step_s, allow_redirects=False
            ) as answer:
                if answer.status_code == 200:
                    size = int(answer.headers.get("content-length", "0"))
                    return _read(answer.raw.read, size, most_bytes, until)
                _logger.warning("no picture from gs://%s: HTTP %s", bucket, answer.status_code)
                fault = FetchFault(NO_OBJECT)
        except (GoogleAuthError, RequestException, HTTPError, OSError) as error:
            _logger.error("no picture from gs://%s: %s", bucket, type(error).__name__)
            fault = FetchFault(NO_BUCKET)
        raise fault

    @property
    def _s3(self) -> Any:
        with self._first:
            return self._s3_client

    @cached_property
    def _s3_client(self) -> Any:
        import boto3  # type: ignore[import-untyped, unused-ignore]
        from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

        step_s = self._table.timeout_s
        config = Config(
            connect_timeout=step_s,
            read_timeout=step_s,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=self._table.at_once,
        )
        return boto3.session.Session().client("s3", config=config)

    @property
    def _google(self) -> tuple[Any, str]:
        """A session with its credentials, and where it asks."""
        with self._first:
            return self._google_session

    @cached_property
    def _google_session(self) -> tuple[Any, str]:
        import google.auth
        import requests
        from google.auth.transport.requests import AuthorizedSession

        emulator = self._environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        if emulator:
            return requests.Session(), emulator if "://" in emulator else f"http://{emulator}"
        credentials, _ = google.auth.default(scopes=[GOOGLE_SCOPE])
        return AuthorizedSession(credentials), self._endpoint  # type: ignore[no-untyped-call, unused-ignore]


def _read(read: Callable[[int], bytes], size: int, most_bytes: int, until: float) -> bytes:
    """All of a body, unless it is too large, or takes too long."""
    if size > most_bytes:
        raise too_large(most_bytes)
    body = bytearray()
    while part := read(PIECE):
        body += part
        if len(body) > most_bytes:
            raise too_large(most_bytes)
        if time.monotonic() > until:
            raise FetchFault(NO_BUCKET)
    return bytes(body)
