"""From where the gateway fetches pictures itself, in its configuration file.

    [references]
    hosts = ["images.example.com", "*.cdn.example.com"]
    buckets = ["s3://pictures", "gs://pictures"]

Without this table nothing is fetched.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import httpx
from pydantic import AfterValidator, Field, model_validator

from smoothing_proxy.settings_file import Settings

__all__ = ["ReferencesTable"]

_WILDCARD = "*."
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")


def _host(text: str) -> str:
    """As it stands in a parsed address: in ASCII and small letters."""
    wild = text.startswith(_WILDCARD)
    try:
        url = httpx.URL(f"https://{text.removeprefix(_WILDCARD) if wild else text}/")
        name = url.raw_host.decode()
    except (httpx.InvalidURL, UnicodeError):
        name = ""
    port = ":" in text and not text.endswith("]")
    alone = name and not port and not url.userinfo and url.raw_path == b"/"
    if not alone or not _NAME.fullmatch(name) or (wild and "." not in name):
        raise ValueError("expected a host such as images.example.com, or *.cdn.example.com for all below one")
    return f"{_WILDCARD}{name}" if wild else name


Host: TypeAlias = Annotated[str, AfterValidator(_host)]

Bucket: TypeAlias = Annotated[str, Field(pattern=r"^(s3|gs)://[a-z0-9][a-z0-9._-]{1,221}$")]

Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]


class ReferencesTable(Settings):
    """hosts: by their exact names, or "*." for all below one. schemes: of addresses. ports: besides 443 and 80.

    buckets: "s3://NAME" and "gs://NAME", read with this gateway's own credentials.
    picture_bytes: of the largest picture; a vendor's own limit counts where it is smaller.
    timeout_s: for one picture, all redirects included. redirects: that are followed, each checked like the first.
    at_once: pictures being fetched. fetched_bytes: of all fetched pictures that are here at the same time.
    allow_private: also from addresses that are not public; for stores in the house whose names are in `hosts`.
    ca_file: PEM of the authorities to trust for https instead of the usual ones.
    """

    hosts: tuple[Host, ...] = ()
    schemes: tuple[Literal["https", "http"], ...] = Field(default=("https",), min_length=1)
    ports: tuple[Port, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    picture_bytes: int = Field(default=20 * 2**20, ge=1, le=2**30)
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    redirects: int = Field(default=3, ge=0, le=3)
    at_once: int = Field(default=16, ge=1, le=1_000)
    fetched_bytes: int = Field(default=256 * 2**20, ge=2**20)
    allow_private: bool = False
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _from_somewhere(self) -> ReferencesTable:
        if not self.hosts and not self.buckets:
            raise ValueError("hosts, buckets: name what pictures may be fetched from, or leave the table out")
        return self

    def lists_host(self, host: str) -> bool:
        """Whether pictures may be fetched from this host: in ASCII and small letters."""
        return any(
            host.endswith(one[1:]) and len(host) >= len(one) if one.startswith(_WILDCARD) else host == one
            for one in self.hosts
        )
