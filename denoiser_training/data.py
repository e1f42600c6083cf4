"""Pictures for training: read once, kept decoded in memory and on disk, split by a fixed rule."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from denoiser_training.data_settings import DataSettings
from denoiser_training.picture_cache import cache_file, read_cache, write_cache
from denoiser_training.pictures import Pictures, evenly
from denoiser_training.sources import Gallery, Source, find_source
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.images.pixels import PICTURE_SUFFIXES

__all__ = ["digits", "is_digits_test", "load_pictures", "split"]


def load_pictures(data: DataSettings, environment: Mapping[str, str] = os.environ) -> Pictures:
    """The pictures of `data.source`, those aside that `data` keeps for a test.

    With class sub-folders, a picture's label is its folder's name. What was decoded before and has not changed
    comes from `data.cache`, memory-mapped; the first time, all of it must fit into memory. environment: says where
    the user's cache folder is.
    Raises ConfigError when there is no such source or no picture in it, or `data.cache` cannot be written;
    ImageError when a picture cannot be decoded.
    """
    if data.source == "digits":
        pictures = digits()
        return pictures.take(_kept(len(pictures), data.test_every)).evenly(data.limit)
    source = find_source(data)
    file = cache_file(data, source, environment)
    pictures_before = read_cache(file) if file else None
    if pictures_before is not None:
        return pictures_before
    try:
        pictures = _decoded(source, data)
    except MemoryError as error:
        remedy = "set data.limit, or a smaller data.working_size"
        raise ConfigError(f"data.source {source.shown}: decoded, it does not fit into memory; {remedy}") from error
    if file:
        write_cache(file, pictures, required=data.cache is not None)
    return pictures


def split(pictures: Pictures, every: int) -> tuple[Pictures, Pictures]:
    """Training and validation: each `every`-th picture in the order of names, from the first, is held out."""
    held_out = range(0, len(pictures), every)
    rest = [i for i in range(len(pictures)) if i % every]
    return pictures.take(rest), pictures.take(held_out)


def is_digits_test(index: int) -> bool:
    """Whether training never sees this picture of scikit-learn's load_digits: each fifth one, from the first."""
    return index % 5 == 0


def digits() -> Pictures:
    """scikit-learn's handwritten digits without the test pictures: 8x8, RGB, their 17 greys spread over 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    kept = [i for i in range(len(bunch.target)) if not is_digits_test(i)]
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Pictures(
        names=tuple(f"digit-{i:04d}" for i in kept),
        pixels=tuple(torch.from_numpy(grey[i]).expand(3, 8, 8).contiguous() for i in kept),
        labels=torch.tensor([int(bunch.target[i]) for i in kept]),
        classes=tuple("0123456789"),
    )


def _decoded(source: Source, data: DataSettings) -> Pictures:
    """Those that are asked for, read by as many threads as the source bears."""
    size = WorkingSize.parse(data.working_size)
    with source.open() as gallery:
        if not gallery.names:
            raise ConfigError(
                f"{source.shown}: no pictures; expected files with {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        kept = _kept(len(gallery.names), data.test_every)
        chosen = [kept[i] for i in evenly(len(kept), data.limit)]
        with ThreadPoolExecutor(max_workers=gallery.workers) as pool:
            read = list(pool.map(lambda index: _picture(gallery, index, size), chosen))
        labels = [label for _, label in read if label is not None]
        classes = gallery.classes if labels else ()
        return Pictures(
            names=tuple(gallery.names[i] for i in chosen),
            pixels=tuple(picture for picture, _ in read),
            labels=torch.tensor(labels) if labels else None,
            classes=classes or tuple(str(label) for label in range(max(labels, default=-1) + 1)),
        )


def _kept(total: int, test_every: int) -> list[int]:
    """Those that are not for the test."""
    return [i for i in range(total) if not test_every or i % test_every]


def _picture(gallery: Gallery, index: int, size: WorkingSize) -> tuple[Tensor, int | None]:
    """uint8 [3, h, w], resized by certification's map, then rounded to bytes; and its label."""
    picture, label = gallery.read(index)
    resize = resize_map(*picture.shape[:2], size)
    if not resize.is_identity:
        picture = np.rint(resize.apply(picture) * 255).astype(np.uint8)
    return torch.tensor(picture).permute(2, 0, 1).contiguous(), label
