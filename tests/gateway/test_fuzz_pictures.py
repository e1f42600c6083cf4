"""Damaged pictures: the client's fault, or still a picture; never ours, and never a wait without end."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.gateway.gateways import SECRET, There, serving

PATIENCE_S = 20.0

KINDS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "PNG interlaced palette": {},
    "JPEG": {"quality": 80},
    "JPEG progressive": {"progressive": True},
    "WebP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
}


def files() -> list[bytes]:
    """One small file in each kind of format, of a picture with detail."""
    grain = np.random.default_rng(1).integers(0, 255, (24, 31, 3), np.uint8)
    made = []
    for kind, options in KINDS.items():
        picture = Image.fromarray(grain)
        if "palette" in kind or kind == "GIF":
            picture = picture.convert("P")
        file = io.BytesIO()
        picture.save(file, kind.split()[0], **options)
        made.append(file.getvalue())
    return made


def mutated(rng: random.Random, file: bytes) -> bytes:
    """Bits flipped, a part cut out, doubled, or replaced; most often near the header, where it tells most."""
    damaged = bytearray(file)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(damaged), rng.choice((40, 120, len(damaged)))) or 1)
        size = rng.randint(1, 24)
        match rng.randrange(5):
            case 0 if damaged:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1 if damaged:
                damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del damaged[at : at + size]
            case 3:
                damaged[at:at] = damaged[at : at + size]
            case _:
                damaged[at : at + size] = rng.randbytes(size)
    return bytes(damaged)


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(harden=False, pixels=1_000_000) as there:
        yield there


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, id="some"),
        pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3_600)]),
    ],
)
def test_damaged_pictures_are_answered_or_refused(there: There, count: int) -> None:
    rng, whole = random.Random(count), files()
    seen: Counter[int] = Counter()
    headers = {"x-api-key": SECRET, "content-type": "application/octet-stream"}
    with httpx.Client(base_url=there.url, timeout=PATIENCE_S, headers=headers) as client:
        for number in range(count):
            image = mutated(rng, whole[number % len(whole)])
            reply = client.post("/v1/predict", content=image)
            seen[reply.status_code] += 1
            assert reply.status_code in (200, 400, 413, 422), (number, image.hex(), reply.text)
            assert image or reply.status_code == 400
    assert seen[200] > 0
    assert seen[422] > count / 4
    assert there.gateway.bodies == 0


def test_whole_pictures_of_each_kind_are_answered(there: There) -> None:
    """Or the test of damaged ones would show nothing."""
    for file, kind in zip(files(), KINDS, strict=True):
        reply = there.ask(image=file)
        assert reply.status_code == 200, kind
