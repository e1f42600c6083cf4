"""Which pictures a run takes, as frozen settings."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    field_serializer,
    field_validator,
    model_validator,
)

from smoothing_proxy.settings_file import Settings

__all__ = ["DataSettings", "without_secrets"]

USER = re.compile(r"://[^/?#]*@")
PASSWORD = re.compile(r"://[^/?#@]*:[^/?#]*@")


def without_secrets(source: str) -> str:
    """The source; of a URL not user, password, query and fragment, which may be secrets, and are renewed."""
    return re.split(r"[?#]", USER.sub("://", source), maxsplit=1)[0] if "://" in source else source


class DataSettings(Settings):
    """Which pictures, and how they are cut.

    source: "digits"; a folder or a .zip of one, whose sub-folders are classes; a URL of either that fsspec
    understands ("s3://bucket/train.zip", "https://...", "gcs://...", "file://..."), a zip where its path ends so;
    or "torchvision:NAME", a data set of torchvision.datasets that yields (picture, class). What access to a URL
    needs comes from its own environment and fsspec's (FSSPEC_S3_ENDPOINT_URL=..., say), or stands in its query, of
    which nothing is stored.
    root, split, options, download: for torchvision. Where its files lie; "train", "test", ... as the data set
    calls them, left out for its own default; further arguments of it; whether to download what is missing.
    license: what the pictures' owner allows, for the card.
    cache: a folder that keeps decoded pictures between runs (picture_cache.py); left out, one in the user's cache
    folder, "" for none.
    working_size: "original", "shorter=256", ...: as at certification (smoothing_proxy.images.geometry).
    crop_px: side of the square that a step sees. pad_px: pixels mirrored around a picture before it is cropped.
    flip: mirror half of the crops.
    test_every: each k-th name in sorted order, from the first, is kept out of the run altogether, for a test
    afterwards; 0 keeps none out. validation_every: each k-th of the others is held out to choose the weights by.
    limit: at most so many of the others, evenly spread; 0 takes all.
    """

    source: str = Field(min_length=1)
    root: Path | None = None
    split: str = ""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    download: bool = False
    license: str = Field(min_length=1)
    cache: str | None = None
    working_size: str = "original"
    crop_px: PositiveInt
    pad_px: NonNegativeInt = 0
    flip: bool = True
    test_every: NonNegativeInt = 0
    validation_every: int = Field(default=10, ge=2)
    limit: NonNegativeInt = 0

    @field_validator("source")
    @classmethod
    def _holds_no_password(cls, source: str) -> str:
        if PASSWORD.search(source):
            raise ValueError("a password does not belong in a URL; leave it to the environment of its protocol")
        return source

    @property
    def shown(self) -> str:
        """The source as messages and files may name it."""
        return without_secrets(self.source)

    @field_serializer("source")
    def _stored(self, source: str) -> str:
        return without_secrets(source)

    @model_validator(mode="after")
    def _root_has_a_use(self) -> DataSettings:
        if not self.source.startswith("torchvision:") and (
            self.root or self.split or self.options or self.download
        ):
            raise ValueError('root, split, options and download are for a source = "torchvision:NAME"')
        return self

    @field_validator("test_every")
    @classmethod
    def _leaves_some(cls, every: int) -> int:
        if every == 1:
            raise ValueError("1 keeps every picture for the test; expected 0 for none, or 2 or more")
        return every
