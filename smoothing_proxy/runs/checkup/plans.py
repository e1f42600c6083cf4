"""What a run would prove, cost and take, and whether its folder can be written: one finding each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.images import geometry
from smoothing_proxy.runs.canary import CANARIES
from smoothing_proxy.runs.checkup.finding import Finding
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.plan import largest_provable, most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.planning import draws_for_radius
from smoothing_proxy.stats.rounding import rounded_down
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["PICTURES", "ledger_finding", "pace_finding", "proof_finding"]

PICTURES = 1000
"""For how many pictures costs and times are said."""


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
    text = (
        f"{_provable(smoothing, picture)}; "
        f"at most {per_picture:,} queries a picture{_usd(per_picture, price_usd)}, "
        f"{thousand:,} for {PICTURES:,} pictures{_usd(thousand, price_usd)}"
    )
    if limit_queries is None:
        paid = price_usd is not None and price_usd > 0
        mend = "no budget is set: [budget] usd = ... stops a run before it spends more" if paid else ""
        return Finding("proof", "ok", text, mend, figures=figures)
    figures["budget_queries"] = limit_queries
    enough = limit_queries // per_picture
    text += f"; the budget of {limit_queries:,} queries is enough for {enough:,} pictures at least"
    mend = (
        "" if enough else "raise [budget], or lower n or max_queries: not even one picture is sure to be finished"
    )
    return Finding("proof", "ok" if enough else "warn", text, mend, figures=figures)


def pace_finding(
    backend: Backend,
    smoothing: Smoothing,
    transport: TransportSettings,
    *,
    in_flight: int,
    latency_s: float | None,
) -> Finding:
    """How long a thousand pictures take. in_flight: requests at once. latency_s: of one request, if measured."""
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
        return Finding(
            "ledger", "fail", f"{out}: {folder} cannot be written", "change its rights, or choose another"
        )
    ledger = out / ledger_name
    if not ledger.exists():
        return Finding("ledger", "ok", f"{out}: can be written")
    if not os.access(ledger, os.W_OK):
        return Finding(
            "ledger", "fail", f"{ledger} cannot be written", "change its rights, or choose another --out"
        )
    return Finding("ledger", "ok", f"{out}: holds a run already, which the same configuration resumes")


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
