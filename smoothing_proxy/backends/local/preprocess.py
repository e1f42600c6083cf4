"""From a picture to a network's input: size, channels, scale, mean and standard deviation.

Size first, on 8-bit pixels, by the formulas that torchvision evaluates its classifiers with on PIL pictures; the
resize is Pillow's, which averages over all source pixels when it shrinks.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, field_validator, model_validator

from smoothing_proxy.errors import RequestRejectedError
from smoothing_proxy.settings_file import Settings, parse_settings

__all__ = ["Preprocess"]

UInt8 = npt.NDArray[np.uint8]

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocess(Settings):
    """How a picture is made to fit a network. What is left out comes from the model's file, where it says.

    size: height and width that the network takes, px; one number for a square. A picture that has this size
        already is not resampled or cropped, whatever the mode.
    mode: "resize-crop" keeps the proportions: resize so that `resize` is covered, then crop the centre;
        "stretch" does not; "none" takes pictures of the right size only.
    resize: px of the shorter side before the crop; left out, round(256/224 of `size`).
    channels: 3 is RGB; 1 is grey, by ITU-R 601 (R, G and B where they are equal).
    scale, mean, std: the network sees (p / 255 * scale - mean) / std of a pixel p; one number or one per channel.
    """

    size: tuple[int, int] | None = None
    mode: Literal["resize-crop", "stretch", "none"] = "resize-crop"
    resize: int | None = Field(default=None, ge=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Literal[1, 3] = 3
    scale: float = Field(default=1.0, gt=0.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def filled(self, **from_file: object) -> Self:
        """The same with what the model's file says, where the user said nothing.

        Raises ConfigError where both cannot be true.
        """
        said = {key: getattr(self, key) for key in self.model_fields_set}
        known = {key: value for key, value in from_file.items() if value is not None}
        return parse_settings(type(self), {**known, **said}, source="the model's file")

    def fit(self, pixels: UInt8) -> UInt8:
        """uint8 [n, h, w, 3] to uint8 [n, *size, channels].

        Raises RequestRejectedError for another size when the mode is "none".
        """
        if self.size is not None and pixels.shape[1:3] != self.size:
            pixels = np.stack([self._fit_one(picture) for picture in pixels])
        return pixels if self.channels == 3 else _grey(pixels)

    def normalise(self, pixels: UInt8) -> npt.NDArray[np.float32]:
        """uint8 [n, h, w, 3] to what the network sees, float32 [n, *size, channels]. Raises as `fit` does."""
        values = self.fit(pixels).astype(np.float32) * np.float32(self.scale / 255.0)
        values -= np.array(self.mean, np.float32)
        values /= np.array(self.std, np.float32)
        return values

    def _fit_one(self, picture: UInt8) -> UInt8:
        assert self.size is not None
        height, width = picture.shape[:2]
        if self.mode == "none":
            wanted = f"{self.size[0]}x{self.size[1]}"
            raise RequestRejectedError(
                f"the picture is {height}x{width} pixels and the classifier takes {wanted}; "
                f"set mode to 'resize-crop' or 'stretch'"
            )
        image = Image.fromarray(picture)
        if self.mode == "stretch":
            return np.asarray(self._resized(image, self.size))
        return _centre(np.asarray(self._resized(image, self._covering(height, width))), self.size)

    def _covering(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size of the picture's proportions that covers `size` and its margin."""
        assert self.size is not None
        margin = self.resize / min(self.size) if self.resize else 256 / 224
        rows, columns = (round(side * margin) for side in self.size)
        if height * columns <= width * rows:
            return rows, max(int(rows * width / height), columns)
        return max(int(columns * height / width), rows), columns

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize((size[1], size[0]), RESAMPLING[self.interpolation])

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: object) -> object:
        return (size, size) if isinstance(size, int) else size

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _each(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size: at least 1 px each way is needed")
        if self.resize is not None and self.size is not None and self.resize < min(self.size):
            raise ValueError("resize: the crop of `size` needs at least its own shorter side")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, self.channels}:
                raise ValueError(f"{key}: one number, or one for each of {self.channels} channels")
        if not all(value > 0.0 for value in self.std):
            raise ValueError("std: must be above 0")
        return self


def _centre(picture: UInt8, size: tuple[int, int]) -> UInt8:
    top, left = (round((have - want) / 2.0) for have, want in zip(picture.shape, size, strict=False))
    return picture[top : top + size[0], left : left + size[1]]


def _grey(pixels: UInt8) -> UInt8:
    """ITU-R 601 in integers, as Pillow converts to "L": exact where R = G = B."""
    luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]
