"""Bodies of the admin's requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from smoothing_proxy.ledger.gateway.nouns import Period
from smoothing_proxy.wire.base import Fault, RequestFault
from smoothing_proxy.wire.shapes import fault_in

__all__ = [
    "KeyList",
    "NewKeyRequest",
    "ShownKey",
    "ShownSecret",
    "SpendReport",
    "TermsRequest",
    "read_body",
]

Vendor: TypeAlias = Literal["aws", "azure", "clarifai", "google", "native", "openai"]

Queries: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Dollars: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Radius: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TermsRequest(_Asked):
    """What a key may do. What is left out stays as it is; null takes a limit away."""

    calls_limit: Queries | None = Field(default=None, description="Queries to the classifier in each period.")
    usd_limit: Dollars | None = Field(default=None, description="Dollars in each period.")
    period: Period = Field(default="month", description="Of both limits, in UTC.")
    requests_per_minute: Count | None = Field(default=None, description="On each replica.")
    parallel: Count | None = Field(default=None, description="Requests under way at once, on each replica.")
    certify: StrictBool = Field(default=False, description="Whether its answers come with a certificate.")
    target_radius: Radius | None = Field(default=None, description="The l2 radius that is enough for it.")
    passthrough: StrictBool | None = Field(
        default=None, description="Whether what cannot be hardened is passed on; null leaves it to the gateway."
    )


class NewKeyRequest(TermsRequest):
    """A key for one vendor's format, "native" for the gateway's own. name: unique, for people."""

    name: str = Field(min_length=1, max_length=200)
    vendor: Vendor


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShownKey(_Shown):
    """A key; its secret is never shown again. id: public, the access key id of an AWS key."""

    id: str
    name: str
    vendor: Vendor
    scheme: Literal["sigv4", "token"]
    disabled: bool
    created_at: float
    calls_limit: int | None
    usd_limit: float | None
    period: Period
    requests_per_minute: int | None
    parallel: int | None
    certify: bool
    target_radius: float | None
    passthrough: bool | None


class ShownSecret(ShownKey):
    """secret: shown now and never again; the secret access key of an AWS key, else the whole token."""

    secret: str


class KeyList(_Shown):
    """Every key, oldest first."""

    keys: tuple[ShownKey, ...]


class ShownSpend(_Shown):
    """calls: answered queries. unknown: sends whose outcome is not known, charged. usd: for both.

    held: queries that are reserved beyond that.
    """

    id: str
    name: str
    period: Period
    calls: int
    unknown: int
    usd: float
    held: int


class SpendReport(_Shown):
    """What keys have spent in the current day or month of UTC, or in all."""

    spend: tuple[ShownSpend, ...]


B = TypeVar("B", bound=_Asked)


def read_body(kind: type[B], body: bytes) -> B:
    """Raises RequestFault (BAD_REQUEST), which never repeats the body."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RequestFault(Fault.BAD_REQUEST, fault_in(error)) from None
