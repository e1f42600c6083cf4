"""The generic backend's request and reply as pure functions: a template with a hole, and paths into JSON."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from smoothing_proxy.backends.before_sending import secret_of
from smoothing_proxy.backends.http import json_of
from smoothing_proxy.errors import ConfigError, MalformedReplyError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import HttpReply

__all__ = ["Body", "Paths", "body_of", "filled_headers", "paths_of", "secrets_of"]

_ENV = re.compile(r"\{env:([^{}]*)\}")

_BASE64, _DATA_URL = b"{image_base64}", b"{image_data_url}"

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "apikey", "x-api-key", "x-auth-token"}
)


@dataclass(frozen=True, slots=True)
class Body:
    """How a picture is packed. template: JSON with the hole, b"" for none. field: of a form, "" for none.

    Without either, the picture's bytes are the body.
    """

    template: bytes = b""
    field: str = ""

    def packed(self, copy: EncodedImage) -> tuple[bytes, str]:
        """The body and its content type."""
        media_type = f"image/{copy.format}"
        if self.template:
            data = base64.b64encode(copy.data)
            url = b"data:%b;base64,%b" % (media_type.encode(), data)
            # Neither holds a character that JSON would escape.
            return self.template.replace(_DATA_URL, url).replace(_BASE64, data), "application/json"
        if not self.field:
            return copy.data, media_type
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{self.field}"; filename="image.{copy.format}"'
            f"\r\nContent-Type: {media_type}\r\n\r\n"
        )
        content = b"".join([head.encode(), copy.data, f"\r\n--{boundary}--\r\n".encode()])
        return content, f"multipart/form-data; boundary={boundary}"


def body_of(body: object, multipart_field: str, *, source: str) -> Body:
    """body: "raw", a JSON template with "{image_base64}" or "{image_data_url}" in it, or None with a form's field.

    Raises ConfigError for both or neither, and for a template without the picture.
    """
    if (body is None) == (not multipart_field):
        raise ConfigError(f"{source}: set one of body (a template, or 'raw') and multipart_field")
    if multipart_field:
        if not re.fullmatch(r"[\w.\[\]-]+", multipart_field, re.ASCII):
            raise ConfigError(f"{source}: multipart_field: expected a form field's name, such as 'image'")
        return Body(field=multipart_field)
    if body == "raw":
        return Body()
    try:
        template = json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: body: {error}") from None
    if isinstance(body, str) or template.count(_BASE64) + template.count(_DATA_URL) == 0:
        raise ConfigError(
            f'{source}: body: expected "raw" or a table with the text "{{image_base64}}" or "{{image_data_url}}" '
            "where the picture belongs"
        )
    return Body(template)


def filled_headers(headers: Mapping[str, str], environ: Mapping[str, str], *, source: str) -> dict[str, str]:
    """Headers, names in lower case, with each {env:NAME} replaced.

    Raises MissingCredentialError for a variable that is not set, and ConfigError for a credential that is written
    out: it would end up in the repository that the file is kept in.
    """
    filled: dict[str, str] = {}
    for name, value in headers.items():
        where = f"{source}: headers.{name}"
        if not isinstance(value, str):
            raise ConfigError(f"{where}: expected a text")
        if name.lower() in _SECRET_HEADERS and "{env:" not in value:
            raise ConfigError(f"{where}: name a variable as {{env:NAME}} instead of writing the credential here")
        filled[name.lower()] = _ENV.sub(partial(_secret, environ, where), value)
    return filled


def secrets_of(headers: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    """The values of the variables that the headers name."""
    return [environ.get(name, "").strip() for value in headers.values() for name in _ENV.findall(value)]


def _secret(environ: Mapping[str, str], where: str, found: re.Match[str]) -> str:
    return secret_of(environ, found[1], source=where)


@dataclass(frozen=True, slots=True)
class Paths:
    """Compiled JSONPaths; None where the reply has no such thing. `labels` with `scores`, or `label` alone."""

    labels: Any = None
    scores: Any = None
    label: Any = None
    model_version: Any = None
    request_id: Any = None
    score_scale: float = 1.0

    def reply(self, answer: HttpReply, backend: str) -> Reply:
        """What the answer says. Raises MalformedReplyError where a path does not find what it should."""
        body = json_of(answer, backend)
        try:
            return Reply(self._labels(body), _single(self.model_version, body), _single(self.request_id, body))
        except _Misfit as misfit:
            raise MalformedReplyError(
                f"{backend}: its answer does not fit: {misfit}", backend=backend, reply=answer.body
            ) from None

    def _labels(self, body: object) -> tuple[ScoredLabel, ...]:
        if self.label is not None:
            found = _find(self.label, body)
            if len(found) > 1:
                raise _Misfit(f"label_path finds {len(found)} values where one is expected")
            return tuple(ScoredLabel(_name(value), 1.0) for value, _ in found)
        names, scores = _find(self.labels, body), _find(self.scores, body)
        if [place for _, place in names] != [place for _, place in scores]:
            raise _Misfit(f"{len(names)} labels and {len(scores)} scores that do not belong together")
        pairs = zip(names, scores, strict=True)
        return tuple(ScoredLabel(_name(name), self._confidence(score)) for (name, _), (score, _) in pairs)

    def _confidence(self, score: object) -> float:
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise _Misfit("a score is no number")
        if not 0 <= score <= self.score_scale:
            raise _Misfit(f"a score is outside of [0, {self.score_scale:g}]; check score_scale")
        return float(score) / self.score_scale


def paths_of(
    *,
    labels_path: str,
    scores_path: str,
    label_path: str,
    model_version_path: str,
    request_id_path: str,
    score_scale: float,
    source: str,
) -> Paths:
    """Raises ConfigError for a path that does not parse, both or neither way to labels, or a scale <= 0."""
    if bool(labels_path) != bool(scores_path) or bool(label_path) == bool(labels_path):
        raise ConfigError(f"{source}: set either labels_path and scores_path, or label_path alone")
    if isinstance(score_scale, bool) or not isinstance(score_scale, int | float) or not 0 < score_scale < 1e9:
        raise ConfigError(f"{source}: score_scale: expected what full confidence is, such as 1 or 100")
    return Paths(
        labels=_compiled(labels_path, f"{source}: labels_path"),
        scores=_compiled(scores_path, f"{source}: scores_path"),
        label=_compiled(label_path, f"{source}: label_path"),
        model_version=_compiled(model_version_path, f"{source}: model_version_path"),
        request_id=_compiled(request_id_path, f"{source}: request_id_path"),
        score_scale=float(score_scale),
    )


class _Misfit(Exception):  # noqa: N818 (caught where the backend's name is known)
    pass


def _compiled(path: str, source: str) -> Any:
    if not path:
        return None
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    try:
        return parse(path)
    except (JSONPathError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {path!r} is no JSONPath: {error}") from None


def _find(path: Any, body: object) -> list[tuple[object, tuple[object, ...]]]:
    """Values with their places: the positions in lists that lead there, which a label shares with its score.

    The members of an object, by `.*` or "`keys`", have their position in it.
    """
    try:
        found = [(match.value, _place(match)) for match in path.find(body)]
    except Exception as error:  # noqa: BLE001 (the library raises what Python raises on shapes it did not expect)
        raise _Misfit(f"the path {path} cannot be followed ({type(error).__name__})") from None
    if found and not any(place for _, place in found):
        return [(value, (number,)) for number, (value, _) in enumerate(found)]
    return found


def _place(match: Any) -> tuple[object, ...]:
    return tuple(int(number) for number in re.findall(r"\[(\d+)\]", str(match.full_path)))


def _name(value: object) -> str:
    """A label's text; class numbers are texts too."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _Misfit("a label is neither text nor number")
    return str(value)


def _single(path: Any, body: object) -> str:
    found: Sequence[tuple[object, object]] = _find(path, body) if path is not None else ()
    value = found[0][0] if len(found) == 1 else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).encode(errors="replace").decode()
