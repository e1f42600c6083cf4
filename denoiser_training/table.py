"""What an evaluation found: rows that outlive an interruption, and a Markdown table beside the paper's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from denoiser_training.differences import differences
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings, parse_settings
from smoothing_proxy.stats.curves import CurvePoint, Share

__all__ = ["PAPER_ROWS", "PAPER_SOURCE", "PaperRow", "Report", "Row", "markdown", "read_report", "write_report"]

PAPER_SOURCE = (
    "Salman, Sun, Yang, Kapoor, Kolter, Denoised Smoothing, NeurIPS 2020 (arXiv 2003.01908): CIFAR-10, "
    "ResNet-110, 500 test pictures, n0 = 100, n = 10,000, alpha = 0.001; the best runs there were chosen on the "
    "test pictures"
)


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A published row. denoiser: as the paper calls it. certified: radius to certified accuracy in %."""

    sigma: float
    denoiser: str
    certified: Mapping[float, float]


def _published(sigma: float, radii: Sequence[float], rows: Mapping[str, Sequence[float]]) -> list[PaperRow]:
    return [PaperRow(sigma, name, dict(zip(radii, values, strict=True))) for name, values in rows.items()]


PAPER_ROWS: tuple[PaperRow, ...] = (
    *_published(
        0.25,
        (0.0, 0.1, 0.25, 0.5, 0.75),
        {
            "none": (10.0, 9.0, 7.0, 2.0, 0.0),
            "MSE": (59.0, 49.8, 33.4, 12.8, 1.8),
            "Stab+MSE, 1 surrogate": (66.8, 55.8, 42.2, 15.8, 3.6),
            "Stab+MSE, 14 surrogates": (69.0, 59.0, 44.0, 18.0, 4.2),
            "Stab, 14 surrogates": (68.4, 57.4, 44.0, 20.2, 4.0),
            "Stab, 1 surrogate, from scratch": (9.2, 6.4, 3.0, 0.8, 0.2),
            "Stab, full access to the target": (76.2, 67.8, 55.6, 35.0, 15.2),
            "none, target retrained with noise": (76.8, 70.4, 59.0, 44.8, 24.4),
        },
    ),
    *_published(
        0.12,
        (0.0, 0.25),
        {
            "MSE": (80.0, 40.6),
            "Stab, 14 surrogates": (82.2, 44.4),
            "Stab+MSE, 14 surrogates": (82.8, 43.4),
        },
    ),
)


class Row(Settings):
    """One denoiser in front of one target.

    denoiser: its spec. fingerprint: of the denoiser. origin, input_px: of the target. psnr (dB), ssim: of the
    denoised copies.
    clean, noisy, denoised: accuracy in [0, 1] on clean pictures and on single noisy and denoised copies.
    certified: by radius. average_radius: l2, [0, 1] pixel scale. machine, versions: what it was computed with.
    seconds: of the denoiser in front of all targets that were certified together.
    """

    denoiser: str
    fingerprint: str
    target: str
    origin: str
    input_px: int
    psnr: float
    ssim: float
    clean: float
    noisy: float
    denoised: float
    certified: tuple[CurvePoint, ...]
    average_radius: float
    abstained: Share
    seconds: float
    machine: str
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, int]:
        """Rows with the same key and the same settings would differ by chance alone."""
        return (self.fingerprint, self.origin, self.input_px)


class Report(Settings):
    """The rows of one question. settings: what all of them share, pictures included."""

    settings: dict[str, JsonValue]
    rows: tuple[Row, ...] = ()

    def with_rows(self, rows: Iterable[Row]) -> Report:
        """These rows after those that are there."""
        return Report(settings=self.settings, rows=(*self.rows, *rows))


def read_report(path: Path, settings: Mapping[str, Any], kind: type[Settings] = Settings) -> Report:
    """What `path` holds, or no rows where there is no such file. kind: whose dump `settings` are.

    Raises ConfigError when it was made with other settings, which it names, or cannot be read.
    """
    if not path.exists():
        return Report(settings=dict(settings))
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not an evaluation's report: {error}") from error
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: not an evaluation's report: expected a JSON object")
    report = parse_settings(Report, tables, source=str(path))
    changed = differences(report.settings, settings, kind)
    if changed:
        raise ConfigError(f"{path}: made with other settings; different: {', '.join(changed)}; use another --out")
    return report


def write_report(path: Path, report: Report) -> None:
    """Whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".tmp")
    written.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    written.replace(path)


def markdown(rows: Sequence[Row], radii: Sequence[float], paper: Sequence[PaperRow] = ()) -> str:
    """A table: accuracies in %, certified ones with their interval; then the paper's rows, if any."""
    heads = ["denoiser", "target", "PSNR dB", "SSIM", "clean", "noisy", "denoised", *(f"{r:g}" for r in radii)]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *(_measured(row) for row in rows)]
    lines += [_quoted(row, radii) for row in paper]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    source = f"\nRows marked (paper): {PAPER_SOURCE}.\n" if paper else ""
    return f"{table}\n{source}"


def _measured(row: Row) -> list[str]:
    accuracies = (f"{100 * value:.1f}" for value in (row.clean, row.noisy, row.denoised))
    certified = (_interval(point.accuracy) for point in row.certified)
    return [row.denoiser, row.target, f"{row.psnr:.2f}", f"{row.ssim:.3f}", *accuracies, *certified]


def _quoted(row: PaperRow, radii: Sequence[float]) -> list[str]:
    certified = (f"{row.certified[r]:.1f}" if r in row.certified else "" for r in radii)
    return [f"{row.denoiser} (paper)", "ResNet-110", *[""] * 5, *certified]


def _interval(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
