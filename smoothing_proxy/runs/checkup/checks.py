"""The checks that need no configuration file: each takes what was made and says one finding about it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.before_sending import check_copy
from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import RequestRejectedError
from smoothing_proxy.images import geometry
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode, encode
from smoothing_proxy.runs.canary import CANARIES
from smoothing_proxy.runs.checkup.finding import Finding
from smoothing_proxy.runs.checkup.vendors import address_doubt, described
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.plan import largest_provable, most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.planning import draws_for_radius
from smoothing_proxy.stats.rounding import rounded_down
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import ScoredLabel
from smoothing_proxy.wire.base import Limits

__all__ = [
    "PICTURES",
    "answer_finding",
    "backend_finding",
    "copy_finding",
    "ledger_finding",
    "map_finding",
    "pace_finding",
    "price_finding",
    "proof_finding",
    "synthetic_picture",
]

PICTURES = 1000
"""For how many pictures costs and times are said."""

OLD_PRICE_DAYS = 365

NEARLY_FULL = 0.9
"""Of a vendor's limit of bytes: another picture may be so much larger."""

ENCODINGS = ("png", "jpeg:95", "jpeg:90", "jpeg:80", "jpeg:60")

SHOWN_LABELS = 5

UInt8 = npt.NDArray[np.uint8]


def synthetic_picture(height: int = 480, width: int = 640) -> UInt8:
    """uint8 [height, width, 3], always the same: gradients, waves and grain, as hard to compress as a photo."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (7.0 + c)) * np.cos(y / (11.0 - 2 * c)) * 40 for c in range(3)]
    slope = 160 * (x / width + y / height) / 2 + 40
    grain = np.random.default_rng(0).normal(0.0, 6.0, (height, width, 3))
    return np.clip(slope[:, :, np.newaxis] + np.stack(waves, axis=2) + grain, 0, 255).astype(np.uint8)


def map_finding(labels: LabelMap | None, answers: Sequence[str]) -> Finding:
    """What the label map makes of the answers that can come, where these are known; its own faults came before."""
    if labels is None:
        return Finding("labels", "ok", "no label map: each label of the classifier is a class of its own")
    classes = ", ".join(labels.classes) or "open: labels that it does not name are classes of their own"
    dropped = [name for name in answers if not labels.classes_of(ScoredLabel(name, 1.0))]
    figures = {"classes": list(labels.classes), "dropped": dropped}
    if dropped and len(dropped) == len(answers):
        mend = f"name some of them in [labels.groups] or [labels.synonyms]: {', '.join(dropped)}"
        return Finding("labels", "fail", "the map drops every answer that can come", mend, figures=figures)
    if dropped:
        text = f"{classes}; these answers vote for nothing: {', '.join(dropped)}"
        return Finding("labels", "warn", text, "leave them out of the answers, or name them in the map", figures=figures)
    return Finding("labels", "ok", classes, figures=figures)


def backend_finding(backend: Backend, credential: str) -> Finding:
    """A backend that could be made. credential: where it was found, "" where none is needed."""
    found = f"credential found in {credential}" if credential else "no credential needed"
    text = "; ".join(part for part in (backend.name, described(backend.fingerprint), found) if part)
    doubt = address_doubt(backend.fingerprint)
    figures = {"fingerprint": dict(backend.fingerprint), "credential": credential}
    if doubt:
        return Finding("backend", "warn", f"{text}; {doubt}", "check the address", figures=figures)
    return Finding("backend", "ok", text, figures=figures)


def copy_finding(copy: EncodedImage, encoding: Encoding, limits: Limits | None, backend: Backend) -> Finding:
    """Whether a noisy, denoised copy is what the vendor takes, and in which encodings it would be."""
    size = f"{copy.width}x{copy.height} px as {encoding}: {len(copy.data):,} bytes a copy"
    figures = {"bytes": len(copy.data), "height": copy.height, "width": copy.width, "encoding": str(encoding)}
    if limits is None:
        return Finding("copy", "ok", f"{size}; no limit is known", figures=figures)
    others = _other_encodings(copy, limits, backend)
    fitting = [text for text, number in others.items() if number and text != str(encoding)]
    figures["fitting"] = {text: number for text, number in others.items() if number}
    said = ", ".join(f"{text} {others[text]:,}" for text in fitting)
    fault = _refusal(copy, limits, backend)
    if fault:
        mend = f"these would fit, in bytes: {said}" if said else "no encoding would fit: make working_size smaller"
        return Finding("copy", "fail", f"{size}; {fault}", mend, figures=figures)
    room = _most_in_a_request(copy, limits, backend)
    if room < backend.batch_size:
        text = f"{size}; only {room} of them fit into one request of {limits.request_bytes:,} bytes"
        mend = f"set batch = {max(1, room)} in [backend]" + (f"; smaller encodings, in bytes: {said}" if said else "")
        return Finding("copy", "fail", text, mend, figures=figures)
    text = f"{size} of {limits.image_bytes:,} that are taken" + (f" (others: {said})" if said else "")
    if len(copy.data) > NEARLY_FULL * limits.image_bytes:
        return Finding("copy", "warn", text, "another picture may be too large: use a smaller encoding", figures=figures)
    return Finding("copy", "ok", text, figures=figures)


def price_finding(price_usd: float, as_of: str, today: date) -> Finding:
    """price_usd: for one query. as_of: the day of the price as YYYY-MM-DD, "" where nobody said."""
    figures = {"price_usd": price_usd, "as_of": as_of}
    if price_usd <= 0:
        return Finding("price", "ok", "a query costs nothing", figures=figures)
    text = f"${price_usd:.4f} a query, ${price_usd * 1000:,.2f} a thousand, price of {as_of or 'an unknown day'}"
    mend = "compare it with your bill, and set price_usd_per_1000 and price_as_of in [backend]"
    if not as_of or _days_since(as_of, today) > OLD_PRICE_DAYS:
        return Finding("price", "warn", text, mend, figures=figures)
    return Finding("price", "ok", text, figures=figures)


def answer_finding(outcome: Outcome, labels: LabelMap, latency_s: float, *, yours: bool) -> Finding:
    """What came back about one clean picture. yours: the user's own picture, which should have a label."""
    reply = outcome.reply
    assert reply is not None
    ranked = sorted(reply.labels, key=lambda label: (-label.confidence, label.name))
    said = ", ".join(f"{label.name} {label.confidence:.3f}" for label in ranked[:SHOWN_LABELS]) or "no label"
    version = f"model {reply.model_version}" if reply.model_version else "model version not stated"
    vote = "nothing" if outcome.label is None else outcome.label
    text = f"answered in {latency_s * 1000:,.0f} ms: {said}; {version}; votes for {vote}"
    figures = {
        "latency_s": latency_s,
        "labels": [
            {"label": label.name, "confidence": label.confidence, "classes": list(labels.classes_of(label))}
            for label in ranked
        ],
        "model_version": reply.model_version,
        "vote": outcome.label,
    }
    if outcome.label is None and yours:
        return Finding("answer", "warn", text, "let [labels] name some of these, or lower threshold", figures=figures)
    mend = "that may be right for a synthetic picture; give one of yours with --image" if outcome.label is None else ""
    return Finding("answer", "ok", text, mend, figures=figures)


def proof_finding(
    smoothing: Smoothing, picture: Picture, *, price_usd: float | None, limit_queries: int | None, canaries: bool
) -> Finding:
    """What can be proven and what it costs at most. price_usd: of one query, None where it is not known.

    limit_queries: of the budget, None for no limit. canaries: whether runs ask for them.
    """
    per_picture = most_draws(smoothing) + 1
    thousand = PICTURES * per_picture + (CANARIES if canaries else 0)
    figures: dict[str, Any] = {
        "queries_per_picture": per_picture,
        f"queries_per_{PICTURES}": thousand,
        f"usd_per_{PICTURES}": None if price_usd is None else thousand * price_usd,
        "largest_radius": largest_provable(smoothing),
        "method": smoothing.certify_method,
    }
    cost = f"at most {per_picture:,} queries a picture{_usd(per_picture, price_usd)}, " + (
        f"{thousand:,} for {PICTURES:,} pictures{_usd(thousand, price_usd)}"
    )
    text = f"{_provable(smoothing, picture)}; {cost}"
    if limit_queries is None:
        paid = price_usd is not None and price_usd > 0
        mend = "no budget is set: [budget] usd = ... stops a run before it spends more" if paid else ""
        return Finding("proof", "ok", text, mend, figures=figures)
    figures["budget_queries"] = limit_queries
    enough = limit_queries // per_picture
    text += f"; the budget of {limit_queries:,} queries is enough for {enough:,} pictures at least"
    mend = "" if enough else "raise [budget], or lower n or max_queries: not even one picture is sure to be finished"
    return Finding("proof", "ok" if enough else "warn", text, mend, figures=figures)


def pace_finding(
    backend: Backend,
    smoothing: Smoothing,
    transport: TransportSettings,
    *,
    in_flight: int,
    latency_s: float | None,
) -> Finding:
    """How long a thousand pictures take. in_flight: requests at once. latency_s: of one request, where measured."""
    if not backend.remote:
        return Finding("pace", "ok", "on this machine: as fast as it computes, without a rate limit")
    queries = PICTURES * (most_draws(smoothing) + 1)
    limits = {}
    if transport.requests_per_s is not None:
        limits[f"{transport.requests_per_s:g} a second allowed"] = transport.requests_per_s
    if latency_s:
        carried = in_flight * backend.batch_size / latency_s
        limits[f"{in_flight} requests in flight at this latency carry {carried:,.0f} a second"] = carried
    mend = "" if transport.requests_per_s is not None else _RATE_ADVICE.format(start=transport.start_per_s)
    if not limits:
        return Finding("pace", "ok", "the vendor's rate is found while asking, and no latency is known yet", mend)
    per_s = min(limits.values())
    text = f"{PICTURES:,} pictures take at most {_duration(queries / per_s)}: {'; '.join(limits)}"
    return Finding("pace", "ok", text, mend, figures={"queries_per_s": per_s, "seconds": queries / per_s})


_RATE_ADVICE = (
    "[transport] requests_per_s = ... spares the search for the vendor's limit, which begins at {start:g} a second"
)


def ledger_finding(out: Path, ledger_name: str) -> Finding:
    """Whether a run's folder can be written; nothing is made there."""
    folder = out
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return Finding("ledger", "fail", f"{out}: {folder} is no folder", "choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("ledger", "fail", f"{out}: {folder} cannot be written", "change its rights, or choose another")
    ledger = out / ledger_name
    if not ledger.exists():
        return Finding("ledger", "ok", f"{out}: can be written")
    if not os.access(ledger, os.W_OK):
        return Finding("ledger", "fail", f"{ledger} cannot be written", "change its rights, or choose another --out")
    return Finding("ledger", "ok", f"{out}: holds a run already, which the same configuration resumes")


def _refusal(copy: EncodedImage, limits: Limits, backend: Backend) -> str:
    try:
        check_copy(copy, limits, backend=backend.name)
    except RequestRejectedError as error:
        return str(error).removeprefix(f"{backend.name}: ")
    return ""


def _other_encodings(copy: EncodedImage, limits: Limits, backend: Backend) -> Mapping[str, int]:
    """The copy's bytes in each encoding that the vendor would take; 0 where it would not."""
    pixels = decode(copy)
    min_side_px = max(limits.min_side_px, backend.encoding.min_side_px)
    sizes = {}
    for text in ENCODINGS:
        other = encode(pixels, Encoding.parse(text, min_side_px=min_side_px))
        sizes[text] = 0 if _refusal(other, limits, backend) else len(other.data)
    return sizes


def _most_in_a_request(copy: EncodedImage, limits: Limits, backend: Backend) -> int:
    """How many such copies one request carries, in base64; Google's backend cuts its requests by itself."""
    if backend.batch_size == 1 or backend.name == "google-vision":
        return backend.batch_size
    room = limits.request_bytes - 200_000  # what stands around the pictures, at most
    return max(0, room // (4 * -(-len(copy.data) // 3) + 1_000))


def _days_since(as_of: str, today: date) -> float:
    try:
        return (today - date.fromisoformat(as_of)).days
    except ValueError:
        return math.inf


def _usd(queries: int, price_usd: float | None) -> str:
    return f" (${queries * price_usd:,.2f})" if price_usd else ""


def _provable(smoothing: Smoothing, picture: Picture) -> str:
    radius = largest_provable(smoothing)
    height, width = picture.working_size
    text = f"{smoothing.certify_method}: can prove up to l2 radius {rounded_down(radius, 4)} at {width}x{height}"
    if not picture.resize.is_selection:
        tall, wide = picture.resize.input_size
        placed = geometry.input_radius(radius, picture.resize)
        text += f" ({rounded_down(placed, 4)} at the picture's own {wide}x{tall})"
    if smoothing.certify_method == "target":
        fewest = draws_for_radius(radius, smoothing.sigma, smoothing.alpha)
        text += f", with {fewest:,} draws at the least"
    return text


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"
