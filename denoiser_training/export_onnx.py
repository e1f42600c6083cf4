"""`python -m denoiser_training.export_onnx CARD [--out FILE]`: a denoiser, or a classifier, as ONNX.

What onnxruntime makes of the file is compared with torch before it is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.classifier_card import is_classifier_card
from denoiser_training.classifier_onnx import export_classifier_onnx, need_onnx
from denoiser_training.files import replace_file
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.card import DenoiserCard
from smoothing_proxy.errors import DenoiserError, SmoothingProxyError

__all__ = ["TOLERANCE", "check_onnx", "export_onnx", "main"]

TOLERANCE = 1e-4
"""The largest allowed difference of a pixel on [0, 1]: a fortieth of a byte's step."""


def export_onnx(card: Path, out: Path) -> float:
    """Write the denoiser of `card` to `out`; returns the largest difference from torch that was seen.

    Inputs: noisy float32 [n, 3, h, w] and sigma float32 [n], all three sizes free. Output: denoised, like noisy,
    unclipped. The card's facts go into the file's metadata. Raises DenoiserError when the card cannot be loaded,
    onnxruntime disagrees, or `out` cannot be written; ConfigError when a library is missing.
    """
    need_onnx()
    facts, network = weights.load(card)
    data = _converted(facts, network)
    difference = check_onnx(data, facts, network)
    try:
        replace_file(out, data)
    except OSError as error:
        raise DenoiserError(f"{out}: cannot write it: {error}") from error
    return difference


def check_onnx(data: bytes, card: DenoiserCard, network: nn.Module) -> float:
    """The largest difference between onnxruntime (on the CPU) and torch over random pictures of several sizes.

    Raises DenoiserError above TOLERANCE, and for an output that is not finite.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for noisy, sigma in _trials(card):
        (denoised,) = session.run(None, {"noisy": noisy.numpy(), "sigma": sigma.numpy()})
        with torch.no_grad():
            expected = network(noisy, sigma)
        difference = float((torch.from_numpy(denoised) - expected).abs().max())
        if not difference <= TOLERANCE:
            raise DenoiserError(
                f"{card.name!r} as ONNX differs from torch by {difference:.3g} on pictures {list(noisy.shape)}; "
                f"at most {TOLERANCE:g} is allowed"
            )
        worst = max(worst, difference)
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the file is written, 2 when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m denoiser_training.export_onnx", description=__doc__)
    parser.add_argument("card", type=Path, help="the card (.json) of a denoiser or classifier")
    parser.add_argument("--out", type=Path, help="the ONNX file; beside the card by default")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.card.with_suffix(".onnx")
    try:
        export = export_classifier_onnx if is_classifier_card(options.card) else export_onnx
        difference = export(options.card, out)
    except SmoothingProxyError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", highlight=False, markup=False)
        return 2
    Console(soft_wrap=True).print(f"{out}: within {difference:.1e} of torch", highlight=False, markup=False)
    return 0


def _converted(card: DenoiserCard, network: nn.Module) -> bytes:
    free = torch.export.Dim.DYNAMIC
    side = card.min_side_px
    example = (torch.rand(2, 3, side + 11, side + 13), torch.full((2,), card.sigma_max))
    program: Any = torch.onnx.export(
        network,
        example,
        dynamo=True,
        input_names=["noisy", "sigma"],
        output_names=["denoised"],
        dynamic_shapes=({0: free, 2: free, 3: free}, {0: free}),
        verbose=False,
    )
    facts = card.model_dump(
        mode="json", include={"name", "sha256", "sigma_min", "sigma_max", "min_side_px", "license"}
    )
    program.model.metadata_props.update({key: str(value) for key, value in facts.items()})
    data: bytes = program.model_proto.SerializeToString()
    return data


def _trials(card: DenoiserCard) -> Iterator[tuple[Tensor, Tensor]]:
    """Noisy pictures of odd, even, tall and wide shapes, sigma over the card's whole range."""
    stream = torch.Generator().manual_seed(0)
    side = card.min_side_px
    for count, height, width in ((1, side, side), (3, side + 1, side + 30), (2, side + 37, side + 5), (4, 64, 64)):
        shape = (count, 3, max(height, side), max(width, side))
        sigma = torch.linspace(card.sigma_min, card.sigma_max, count)
        noise = sigma[:, None, None, None] * torch.randn(shape, generator=stream)
        yield torch.rand(shape, generator=stream) + noise, sigma


if __name__ == "__main__":
    sys.exit(main())
