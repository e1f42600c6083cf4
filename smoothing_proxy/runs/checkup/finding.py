"""One check's result, how results become an exit code, and how secrets are kept out of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

__all__ = ["Finding", "Status", "exit_code", "secrets_in", "veiled"]

Status: TypeAlias = Literal["ok", "warn", "fail", "skip"]

HIDDEN = "***"

_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|(^|_)PAT)$", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_PASSWORD = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
_REFERENCE = re.compile(r"\{env:([^{}]*)\}")
_SHORTEST = 6
"""Characters; hiding shorter ones would garble every message."""


@dataclass(frozen=True, slots=True)
class Finding:
    """check: its name, one word. status: "skip" where an earlier failure left nothing to check.

    text: what was found. mend: what to do about it, "" for nothing. theirs: a failure that only the
    vendor can mend. figures: the same as JSON values, for programs.
    """

    check: str
    status: Status
    text: str
    mend: str = ""
    theirs: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)

    def without(self, secrets: Iterable[str]) -> Finding:
        """The same with every secret hidden, wherever it stands."""
        known = tuple(secrets)
        return replace(
            self,
            text=veiled(self.text, known),
            mend=veiled(self.mend, known),
            figures=_veiled_value(dict(self.figures), known),
        )


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without a failure, 2 where one is the user's to mend, 3 where all are the vendor's."""
    failed = [finding for finding in findings if finding.status == "fail"]
    if not failed:
        return 0
    return 3 if all(finding.theirs for finding in failed) else 2


def secrets_in(environ: Mapping[str, str], options: Mapping[str, Any]) -> tuple[str, ...]:
    """What no output may hold, longest first: the environment's credentials, by the names of their variables and
    by those that a backend's options refer to, passwords in addresses, and a credential given where a variable's
    name is expected.
    """
    referred = set(_referred(options))
    values = [value for name, value in environ.items() if name in referred or _SECRET_NAME.search(name)]
    pasted = [name for name in referred if name not in environ and not _VARIABLE.fullmatch(name)]
    passwords = _PASSWORD.findall("\n".join([*environ.values(), *_texts(options)]))
    found = {text.strip() for text in (*values, *pasted, *passwords)}
    return tuple(sorted((text for text in found if len(text) >= _SHORTEST), key=lambda text: (-len(text), text)))


def veiled(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _referred(options: Mapping[str, Any]) -> Iterator[str]:
    """Names of environment variables that hold credentials, as options name them. An endpoint is none."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _referred(value)
        elif isinstance(value, str):
            yield from _REFERENCE.findall(value)
            if key.endswith("_env") and key != "endpoint_env":
                yield value


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    for value in options.values():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value


def _veiled_value(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return veiled(value, secrets)
    if isinstance(value, Mapping):
        return {veiled(str(key), secrets): _veiled_value(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_veiled_value(inner, secrets) for inner in value]
    return value
