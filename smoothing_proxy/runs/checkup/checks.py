"""What a denoiser, a backend, a copy and an answer are like: one finding each, about what was made already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.before_sending import check_copy
from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import RequestRejectedError
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode, encode
from smoothing_proxy.runs.checkup.finding import Finding
from smoothing_proxy.runs.checkup.vendors import address_doubt, described
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import ScoredLabel
from smoothing_proxy.wire.base import Limits

__all__ = [
    "answer_finding",
    "backend_finding",
    "copy_finding",
    "denoiser_finding",
    "map_finding",
    "price_finding",
    "synthetic_picture",
]

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
    shades = slope[:, :, np.newaxis] + np.stack(waves, axis=2) + grain
    return np.asarray(np.clip(shades, 0, 255), dtype=np.uint8)


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
        return Finding(
            "labels", "warn", text, "leave them out of the answers, or name them in the map", figures=figures
        )
    return Finding("labels", "ok", classes, figures=figures)


def denoiser_finding(denoiser: Denoiser, sigma: float, size: tuple[int, int]) -> Finding:
    """A denoiser that could be made (its weights are those of its card) and takes sigma and (height, width)."""
    text = f"{denoiser.name} takes sigma {sigma:g} at {size[1]}x{size[0]}"
    figures = {"name": denoiser.name, "fingerprint": denoiser.fingerprint}
    if isinstance(denoiser, Identity):
        mend = "few classifiers recognise noisy pictures: set [denoiser] name = ..."
        return Finding("denoiser", "warn", f"{text}, and removes nothing", mend, figures=figures)
    return Finding("denoiser", "ok", f"{text} ({denoiser.fingerprint})", figures=figures)


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
    written = str(encoding) if copy.format == encoding.format else copy.format
    size = f"{copy.width}x{copy.height} px as {written}: {len(copy.data):,} bytes a copy"
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
        mend = f"set batch = {max(1, room)} in [backend]" + (
            f"; smaller encodings, in bytes: {said}" if said else ""
        )
        return Finding("copy", "fail", text, mend, figures=figures)
    text = f"{size} of {limits.image_bytes:,} that are taken" + (f" (others: {said})" if said else "")
    if copy.format != encoding.format:
        mend = "set the encoding to what is sent all the same: each copy is encoded several times until it fits"
        return Finding("copy", "warn", f"too large as {encoding}, so made to fit: {text}", mend, figures=figures)
    if len(copy.data) > NEARLY_FULL * limits.image_bytes:
        return Finding(
            "copy", "warn", text, "another picture may be too large: use a smaller encoding", figures=figures
        )
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
        return Finding(
            "answer", "warn", text, "let [labels] name some of these, or lower threshold", figures=figures
        )
    mend = (
        "that may be right for a synthetic picture; give one of yours with --image"
        if outcome.label is None
        else ""
    )
    return Finding("answer", "ok", text, mend, figures=figures)


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
    """How many such copies one request carries, in base64; these backends cut their requests by themselves."""
    if backend.batch_size == 1 or backend.name in ("clarifai", "google-vision"):
        return backend.batch_size
    room = limits.request_bytes - 200_000  # what stands around the pictures, at most
    return max(0, room // (4 * -(-len(copy.data) // 3) + 1_000))


def _days_since(as_of: str, today: date) -> float:
    try:
        return (today - date.fromisoformat(as_of)).days
    except ValueError:
        return math.inf
