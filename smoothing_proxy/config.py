"""The configuration file: TOML into frozen settings.

    [smoothing]                      # sigma, n0, n, alpha, working_size
    sigma = 0.25

    [backend]
    name = "local:model.tflite"      # every further key is an option of that backend
    labels = "labels.txt"

    [denoiser]
    name = "wavelet:haar"            # every further key is an option of that denoiser

    [labels]                         # a label map; see smoothing_proxy.backends.labels
    [encoding]                       # format, quality, min_side_px, max_side_px, max_bytes
    [run]                            # in_flight, pictures_at_once, canaries, family, family_size, family_radii
    [budget]                         # queries, usd
    [transport]                      # requests_per_s, attempts, ...; see smoothing_proxy.transport.settings

Paths are relative to the current directory, as on the command line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.codec import Encoding
from smoothing_proxy.settings_file import Settings, parse_settings, read_toml
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["Budget", "NamedOptions", "ProxyConfig", "RunOptions", "read_config"]


class NamedOptions(Settings):
    """A backend or denoiser by name; the further keys are its own options, checked by itself."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, JsonValue]:
        """All but the name."""
        return dict(self.model_extra or {})


class RunOptions(Settings):
    """in_flight: requests under way at once, and so the backend's `concurrency` too; None takes the backend's.

    pictures_at_once: whose draws are under way together; None takes 4, and as many as keep the vendor busy where
    each picture has few draws in flight, as sequential proofs do.

    canaries: three more queries about one clean picture, to see whether the classifier changes during the run;
    None asks them where queries are paid.

    family: what the certificates say together (smoothing_proxy.runs.family): "per-picture", "bonferroni" or
    "holm". family_size: pictures that alpha is shared out over, fixed when the run begins; None takes as many as
    there are then, and no further one can be added. family_radii: those that "holm" is asked about.
    """

    in_flight: int | None = Field(default=None, ge=1)
    pictures_at_once: int | None = Field(default=None, ge=1)
    canaries: bool | None = None
    family: Literal["per-picture", "bonferroni", "holm"] = "per-picture"
    family_size: int | None = Field(default=None, ge=1)
    family_radii: tuple[float, ...] = ()


class Budget(Settings):
    """The most that a run may ever spend, over all its processes; None for any amount. The smaller one counts."""

    queries: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def limit_queries(self, price_usd: float) -> int | None:
        """Both limits as one number of queries, at `price_usd` each."""
        limits = [] if self.queries is None else [self.queries]
        if self.usd is not None and price_usd > 0:
            # A dollar amount that is a whole number of queries buys all of them, whatever floats make of it.
            limits.append(math.floor(self.usd / price_usd * (1 + 1e-12)))
        return min(limits, default=None)


class ProxyConfig(Settings):
    """All that a run needs to know."""

    smoothing: Smoothing
    backend: NamedOptions
    denoiser: NamedOptions = NamedOptions(name="identity")
    labels: LabelMap | None = None
    encoding: Encoding | None = None
    run: RunOptions = RunOptions()
    budget: Budget = Budget()
    transport: TransportSettings | None = None


_NEEDED = {"backend": "a classifier (--backend)", "smoothing": "the noise level (--sigma)"}


def read_config(path: Path | None, overrides: Mapping[str, Mapping[str, Any]]) -> ProxyConfig:
    """The file's settings with `overrides` (table -> key -> value) on top; None has overrides alone.

    An override of a table's `name` drops the options of the name that the file had, since they were its own.
    Raises ConfigError that names the file, the key and what was expected.
    """
    tables: dict[str, Any] = read_toml(path) if path else {}
    for table, values in overrides.items():
        if not values:
            continue
        there = tables.get(table, {})
        if not isinstance(there, dict):
            raise ConfigError(f"{path}: {table}: expected a table [{table}], with the name as `name = ...`")
        renamed = "name" in values and there.get("name") != values["name"]
        tables[table] = {**({} if renamed else there), **values}
    missing = [hint for table, hint in _NEEDED.items() if table not in tables]
    if missing:
        raise ConfigError(f"{path or 'command line'}: missing: {', '.join(missing)}; or name a file with --config")
    return parse_settings(ProxyConfig, tables, source=str(path) if path else "command line")
