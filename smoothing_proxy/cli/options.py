"""The options that several commands share: every setting of a configuration file can be given by flag."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from smoothing_proxy.errors import ConfigError

__all__ = ["encoding_table", "family_options", "json_option", "key_values", "settings_options"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

SMOOTHING = ("sigma", "n0", "n", "alpha", "working_size", "method", "max_queries", "policy", "two_sided")

_SETTINGS = (
    click.option(
        "--config", "config_path", type=click.Path(path_type=Path), help="A TOML file with the settings."
    ),
    click.option("--backend", help="The classifier: local:model.tflite, local:torchvision/resnet18, ..."),
    click.option("--denoiser", help="identity, wavelet:haar, gaussian:1.5, median:3, a shipped name or a card."),
    click.option("--sigma", type=float, help="Noise, on the [0, 1] pixel scale."),
    click.option("--n0", type=int, help="Draws that choose the label."),
    click.option("--n", type=int, help="Draws that prove it."),
    click.option(
        "--target-radius",
        "target_radii",
        type=float,
        multiple=True,
        help="Stop once this l2 radius is proven, or hopeless; repeatable, the largest proven one counts.",
    ),
    click.option("--method", help="fixed, target or largest; see the documentation of Smoothing."),
    click.option("--max-queries", type=int, help="Draws at which a sequential method ends at the latest."),
    click.option(
        "--two-sided",
        is_flag=True,
        default=None,
        help="With --method fixed: bound the runner-up as well, where that proves more.",
    ),
    click.option("--policy", help="cost: few needless draws; latency: always as many as allowed in flight."),
    click.option("--alpha", type=float, help="Probability that a proof is false, for each picture."),
    click.option("--working-size", help='Resize first: "224x224", "shorter=256,crop=224", "longer=640".'),
    click.option("--encoding", help="How copies travel: raw, png, jpeg or jpeg:QUALITY."),
    click.option("--in-flight", type=int, help="Requests under way at once."),
    click.option("--budget-usd", type=float, help="Spend at most so many dollars, over all resumptions."),
    click.option("--budget-queries", type=int, help="Spend at most so many queries, over all resumptions."),
    click.option(
        "--backend-option", "-b", multiple=True, metavar="KEY=VALUE", help="An option of the backend; repeatable."
    ),
    click.option(
        "--denoiser-option",
        "-d",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of the denoiser; repeatable.",
    ),
)


_FAMILY = (
    click.option(
        "--family",
        type=click.Choice(["per-picture", "bonferroni", "holm"]),
        help="What the certificates say together: each for itself, or all at once but for one alpha.",
    ),
    click.option(
        "--family-size",
        type=click.IntRange(min=1),
        help="With --family: the most pictures that there will ever be; by default those there are now.",
    ),
    click.option(
        "--family-radius",
        "family_radii",
        type=float,
        multiple=True,
        help="With --family holm: an l2 radius to hold for all; repeatable, the largest proven one counts.",
    ),
)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config and a flag for each setting; the command gets them as one ProxyConfig named `config`."""

    @functools.wraps(command)
    def with_config(*args: Any, **values: Any) -> Any:
        from smoothing_proxy.config import read_config

        path = values.pop("config_path")
        overrides = _overrides(values)
        return command(*args, config=read_config(path, overrides), **values)

    for option in reversed(_SETTINGS):
        with_config = option(with_config)
    return with_config


def _overrides(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Take the shared flags out of `values`, as tables of a configuration; flags not given are left out."""
    radii = list(values.pop("target_radii"))
    tables: dict[str, dict[str, Any]] = {
        "backend": {"name": values.pop("backend"), **key_values(values.pop("backend_option"))},
        "denoiser": {"name": values.pop("denoiser"), **key_values(values.pop("denoiser_option"))},
        "smoothing": {key: values.pop(key) for key in SMOOTHING} | {"target_radii": radii or None},
        "encoding": encoding_table(values.pop("encoding")),
        "run": {"in_flight": values.pop("in_flight"), **_family(values)},
        "budget": {"usd": values.pop("budget_usd"), "queries": values.pop("budget_queries")},
    }
    return {
        table: {key: value for key, value in keys.items() if value is not None} for table, keys in tables.items()
    }


def family_options(command: Any) -> Any:
    """Adds --family and what goes with it to a command that has `settings_options` too, for the table [run]."""
    for option in reversed(_FAMILY):
        command = option(command)
    return command


def _family(values: dict[str, Any]) -> dict[str, Any]:
    radii = list(values.pop("family_radii", ()))
    return {key: values.pop(key, None) for key in ("family", "family_size")} | {"family_radii": radii or None}


def encoding_table(text: str | None) -> dict[str, Any]:
    """The table [encoding] that --encoding stands for; empty where it was not given. Raises ConfigError."""
    if text is None:
        return {}
    from smoothing_proxy.images.codec import Encoding

    encoding = Encoding.parse(text)
    return {"format": encoding.format, "quality": encoding.quality}


def key_values(texts: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE texts; a value is read as TOML where it is TOML (numbers, true, lists) and as text otherwise."""
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"option {text!r}: expected KEY=VALUE")
        try:
            pairs[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            pairs[key] = value
    return pairs
