"""Richer certificates for the picture as the user sent it: their sizes, and their radii in its own space."""

from __future__ import annotations

from dataclasses import replace

from smoothing_proxy.images.geometry import ResizeMap, input_radius
from smoothing_proxy.types import LabelCertificate, LabelsCertificate, TopKCertificate

__all__ = ["place_labels", "place_top_k"]


def place_labels(certificate: LabelsCertificate, resize: ResizeMap) -> LabelsCertificate:
    """As picture.place; `resize` led from the user's picture to the one that the certificate speaks of."""
    return replace(
        certificate,
        labels=tuple(_place_label(proof, resize) for proof in certificate.labels),
        working_size=resize.working_size,
        input_size=resize.input_size,
    )


def place_top_k(certificate: TopKCertificate, resize: ResizeMap) -> TopKCertificate:
    """As picture.place."""
    return replace(
        certificate,
        input_radius=input_radius(certificate.radius, resize),
        working_size=resize.working_size,
        input_size=resize.input_size,
    )


def _place_label(proof: LabelCertificate, resize: ResizeMap) -> LabelCertificate:
    confidence = proof.confidence
    if confidence is not None:
        confidence = replace(confidence, input_radius=input_radius(confidence.radius, resize))
    return replace(proof, input_radius=input_radius(proof.radius, resize), confidence=confidence)
