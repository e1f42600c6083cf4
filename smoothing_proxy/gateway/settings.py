"""What the gateway is told: where it listens, how it answers, and who may ask.

The configuration of a run (smoothing, backend, denoiser, labels, encoding, transport) with two tables more:

    [gateway]                        # host, port, grpc_port, abstain, deadline_s, ...
    [[keys]]                         # id, secret_env, limit_queries, target_radius, abstain, vendors
    [references]                     # from where pictures may be fetched: see gateway.references_settings
    [admin]                          # key_env, for keys over HTTP: see gateway.admin_settings
    [store]                          # or keys, budgets and verdicts in a database: see ledger.gateway.settings
    [telemetry]                      # endpoint, for traces
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, IPvAnyNetwork, model_validator

from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.admin_settings import AdminTable
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.ledger.gateway.settings import StoreTable
from smoothing_proxy.settings_file import Settings, parse_settings, read_toml

__all__ = [
    "VENDORS",
    "Abstain",
    "GatewayConfig",
    "GatewaySettings",
    "KeySettings",
    "PassthroughTable",
    "PerLabelTable",
    "TelemetryTable",
    "Vendor",
    "read_gateway_config",
]

Vendor: TypeAlias = Literal["aws", "azure", "clarifai", "google", "openai", "native"]

VENDORS: tuple[Vendor, ...] = ("aws", "azure", "clarifai", "google", "openai", "native")

CLARIFAI_MODELS = ("general-image-recognition", "aaa03c23b3724a16a56b629203edf62c")
"""Name and id of Clarifai's model for pictures of anything (as its model gallery has them)."""

Abstain: TypeAlias = Literal["empty", "error", "unhardened"]
"""What stands in the place of an answer that the votes do not carry: a reply without labels, the picture's own
fault, or what the classifier says about the picture itself, marked as such."""


class PerLabelTable(Settings):
    """Proofs about each label of an answer, made of the draws that it was made of: see gateway.label_proving.

    always: for every request; else for those that ask. keys: by a key's id, in place of `always` for what it asks.
    threshold: the confidence from which on a label counts as present, where the request names none.
    watched: labels that are tested whatever the draws say. most: claims that are tested at most.
    confidence_radius: l2, within which median confidences are bounded; None takes the request's target radius, or
    half of sigma where it has none.
    """

    always: bool = False
    keys: dict[str, bool] = Field(default_factory=dict)
    threshold: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    watched: tuple[str, ...] = ()
    most: int = Field(default=10, ge=1, le=100)
    confidence_radius: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class PassthroughTable(Settings):
    """What cannot be hardened goes to the vendor as it is, where the classifier behind is that very vendor.

    enabled: for keys that do not say otherwise. operations: names of the only ones, as the vendor has them; () for
    those that look at a picture and keep nothing (wire.errands.USUAL). references: also for pictures in buckets or
    at addresses, which the vendor fetches with the rights of this gateway's own account. price_usd: of each query
    that is passed on, one for each feature of a picture; None takes the price of a label.
    """

    enabled: bool = False
    operations: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9:./_-]{1,100}$")], ...] = ()
    references: bool = False
    price_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class TelemetryTable(Settings):
    """Traces by OTLP over HTTP. endpoint: as in "http://127.0.0.1:4318", "" for that of the OTEL_ variables.

    service_name: "" for OTEL_SERVICE_NAME, else smoothing-proxy. sample_ratio: of the requests that come without a
    decision of their own (traceparent); None for all, or what OTEL_TRACES_SAMPLER says.
    """

    endpoint: str = Field(default="", pattern=r"^(https?://[^\s/?#@]+[^\s?#@]*)?$")
    service_name: str = ""
    sample_ratio: float | None = Field(default=None, ge=0, le=1)


class GatewaySettings(Settings):
    """host, port: of HTTP, 0 for a free port. grpc_port: of Google's gRPC; None leaves it out.

    tls_cert, tls_key: PEM files for both ports, both or neither. vendors: whose formats are answered.
    harden: false asks about each picture once, as it is: no noise, no denoiser, every answer marked as unhardened,
        and no certificate is given. To see routes, keys and speed before copies are paid for.
    abstain: see Abstain. labels: a reply carries the classifier's "own" labels, or the "canonical" ones that the
        label map makes of them (for clients who ask for a closed list of labels).
    deadline_s: what cannot be answered so soon is refused at once; boto3 gives up after 60. drain_s: for the work
        under way when the gateway is stopped. body_timeout_s: for a request to arrive.
    replay_ttl_s: for how long a request that is sent again gets the same answer.
    verdict_ttl_s: for how long a key gets the same verdict about the same picture in other requests; 0 for never.
    max_pending: requests under way at once; further ones are told to come back.
    bodies_bytes: of all requests that are here at the same time; further ones are told to come back.
    pictures_at_once: unpacked in memory, of all requests; further ones wait. pixels_at_once: of these together, at
        the size at which noise is added. pixels, side_px: of the largest one.
    radius_step: target radii are rounded up to multiples of it, since each needs a boundary of its own.
    trusted_proxies: networks (CIDR) of the reverse proxies whose X-Forwarded-Host and -Proto are believed.
    passthrough: see PassthroughTable.
    per_label: see PerLabelTable.
    clarifai_models, openai_prompts: see gateway.asked.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    grpc_port: int | None = Field(default=None, ge=0, le=65_535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    vendors: tuple[Vendor, ...] = VENDORS
    harden: bool = True
    abstain: Abstain = "empty"
    labels: Literal["own", "canonical"] = "own"
    deadline_s: float = Field(default=55.0, gt=0, le=3_600)
    drain_s: float = Field(default=30.0, ge=0, le=3_600)
    body_timeout_s: float = Field(default=30.0, gt=0, le=3_600)
    replay_ttl_s: float = Field(default=3_600.0, gt=0, le=604_800)
    verdict_ttl_s: float = Field(default=86_400.0, ge=0, le=31_536_000)
    max_pending: int = Field(default=256, ge=1, le=100_000)
    bodies_bytes: int = Field(default=512 * 2**20, ge=2**20)
    pictures_at_once: int = Field(default=16, ge=1, le=10_000)
    pixels_at_once: int = Field(default=25_000_000, ge=1)
    pixels: int = Field(default=25_000_000, ge=1, le=89_478_485)
    side_px: int = Field(default=16_384, ge=1)
    radius_step: float = Field(default=0.05, gt=0, le=1)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    passthrough: PassthroughTable = PassthroughTable()
    per_label: PerLabelTable = PerLabelTable()
    clarifai_models: tuple[Annotated[str, Field(min_length=1)], ...] = CLARIFAI_MODELS
    openai_prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _certificate_and_key(self) -> GatewaySettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: both are needed, or neither")
        return self


class KeySettings(Settings):
    """A virtual key. id: as an AWS access key id. secret_env: the variable that holds its secret.

    limit_queries: that it may spend, None for any number. certify, target_radius: for all its requests.
    abstain, passthrough: in place of the gateway's. vendors: that it may use.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,64}$")
    secret_env: str = Field(min_length=1)
    limit_queries: int | None = Field(default=None, ge=0)
    certify: bool = False
    target_radius: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    abstain: Abstain | None = None
    passthrough: bool | None = None
    vendors: tuple[Vendor, ...] = VENDORS

    def secret(self, environ: Mapping[str, str]) -> str:
        """Raises ConfigError, which names the variable, where it is not set or shorter than 16 characters."""
        value = environ.get(self.secret_env, "").strip()
        if len(value) < SHORTEST_SECRET:
            raise ConfigError(
                f"keys: {self.id}: the environment variable {self.secret_env} has to hold a secret of at least "
                f"{SHORTEST_SECRET} characters"
            )
        return value


SHORTEST_SECRET = 16


class GatewayConfig(ProxyConfig):
    """All that the gateway needs to know. keys live in the file, or in the store, not in both."""

    gateway: GatewaySettings = GatewaySettings()
    keys: tuple[KeySettings, ...] = ()
    store: StoreTable | None = None
    references: ReferencesTable | None = None
    admin: AdminTable | None = None
    telemetry: TelemetryTable = TelemetryTable()

    @model_validator(mode="after")
    def _distinct_keys(self) -> GatewayConfig:
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("keys: each needs an id of its own")
        return self

    @model_validator(mode="after")
    def _keys_to_administer(self) -> GatewayConfig:
        if self.admin is not None and self.store is None:
            raise ValueError("admin: keys in this file cannot be changed over HTTP; give it a table [store]")
        return self


def read_gateway_config(path: Path) -> GatewayConfig:
    """The file's settings. Raises ConfigError that names the file, the key and what was expected."""
    return parse_settings(GatewayConfig, read_toml(path), source=str(path))
