from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoiser_training.data import load_pictures
from denoiser_training.data_settings import DataSettings
from denoiser_training.pictures import Pictures
from denoiser_training.sources import source_name
from smoothing_proxy.errors import ConfigError

fsspec = pytest.importorskip("fsspec")


def settings(source: Path | str, **fields: Any) -> DataSettings:
    return DataSettings(source=str(source), license="test", crop_px=8, **{"cache": "", **fields})


def same(one: Pictures, other: Pictures) -> bool:
    return (
        one.names == other.names
        and one.classes == other.classes
        and one.labels is not None
        and other.labels is not None
        and torch.equal(one.labels, other.labels)
        and all(torch.equal(a, b) for a, b in zip(one.pixels, other.pixels, strict=True))
    )


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, knows no ranges, and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the handler's signature)
        pass


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """The pictures of `folder` as a zip."""
    return Path(shutil.make_archive(str(tmp_path / "served" / "all"), "zip", folder))


@pytest.fixture
def server(folder: Path, archive: Path) -> Iterator[str]:
    """The address of a server on this machine with the zip, and with the folder."""
    shutil.copytree(folder, archive.parent / "pictures")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join(timeout=10)


@pytest.fixture
def memory(folder: Path, archive: Path) -> Iterator[Any]:
    """fsspec's store in memory, with the zip and the folder in a bucket."""
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/bucket/pictures", recursive=True)
    system.pipe_file("/bucket/all.zip", archive.read_bytes())
    yield system
    system.rm("/bucket", recursive=True)


def test_a_url_holds_what_the_folder_behind_it_holds(
    folder: Path, archive: Path, server: str, memory: object
) -> None:
    local = load_pictures(settings(folder))
    for url in (
        folder.as_uri(),
        archive.as_uri(),
        "memory://bucket/pictures",
        "memory://bucket/pictures/",
        "memory://bucket/all.zip",
        f"{server}/all.zip",
        f"{server}/all.zip?token=1",
        f"{server}/pictures/",
    ):
        assert same(load_pictures(settings(url)), local), url


def test_what_is_not_behind_a_url_is_named_without_its_secrets(
    server: str, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    memory.pipe_file("/bucket/text.zip", b"no zip at all")
    memory.pipe_file("/bucket/letters/a.txt", b"a")
    for url, says in (
        (f"{server}/none.zip?token=hush", "none.zip: there is no such file"),
        ("http://127.0.0.1:9/all.zip?token=hush", "127.0.0.1:9/all.zip: Client"),
        ("memory://bucket/none.zip", "no such file"),
        ("memory://bucket/none", "no such folder"),
        ("memory://bucket/letters", "no pictures"),
        ("memory://bucket/text.zip", "is no zip"),
        ("s3://bucket/train.zip", "s3fs"),
        ("nosuch://bucket/train.zip", "nosuch"),
    ):
        with pytest.raises(ConfigError) as error:
            load_pictures(settings(url))
        assert says in str(error.value), url
        assert "hush" not in str(error.value)


def test_a_password_in_a_url_is_refused() -> None:
    with pytest.raises(ValueError, match="a password does not belong in a URL"):
        settings("https://me:hush@example.org/train.zip")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/me/secret/train.zip", "train.zip"),
        ("https://example.org/deep/train.zip?token=hush", "train.zip"),
        ("torchvision:CIFAR10", "torchvision:CIFAR10"),
    ],
)
def test_a_card_calls_a_source_by_its_last_name(source: str, name: str) -> None:
    assert source_name(source) == name


def idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """A file as MNIST's are: two zeros, type, dimensions, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Twelve training pictures and five test pictures in MNIST's own files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 5)):
        raw = tmp_path / "root" / "MNIST" / "raw"
        idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path / "root"


def test_a_torchvision_set_is_read_from_its_own_files(mnist: Path) -> None:
    pictures = load_pictures(settings("torchvision:MNIST", root=mnist, split="train"))
    assert (pictures.names[0], pictures.names[-1]) == ("MNIST-00", "MNIST-11")
    assert pictures.classes[3] == "3 - three"
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [*range(10), 0, 1]
    raw = np.fromfile(mnist / "MNIST/raw/train-images-idx3-ubyte", np.uint8)[16:].reshape(12, 28, 28)
    assert all(np.array_equal(pictures.pixels[i][plane], raw[i]) for i in range(12) for plane in range(3))
    test = load_pictures(settings("torchvision:MNIST", root=mnist, split="test", working_size="shorter=14"))
    assert (len(test), test.smallest_side) == (5, 14)


def test_a_torchvision_set_takes_its_own_arguments(folder: Path) -> None:
    options = {"size": 7, "image_size": [3, 9, 11], "num_classes": 4}
    fake = load_pictures(settings("torchvision:FakeData", options=options, limit=3))
    assert (fake.names, fake.classes) == (("FakeData-0", "FakeData-2", "FakeData-4"), ("0", "1", "2", "3"))
    assert {tuple(picture.shape) for picture in fake.pixels} == {(3, 9, 11)}
    named, own = load_pictures(settings("torchvision:ImageFolder", root=folder)), load_pictures(settings(folder))
    assert named.classes == own.classes
    assert all(torch.equal(a, b) for a, b in zip(named.pixels, own.pixels, strict=True))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source": "torchvision:CIFAR10"}, "set data.root to the folder with its files"),
        ({"source": "torchvision:CIFAR10", "root": "ROOT"}, "set data.download = true, or put its files into"),
        ({"source": "torchvision:ImageNet", "root": "ROOT"}, "torchvision cannot download it: put its files into"),
        ({"source": "torchvision:CIFAR11"}, "did you mean 'CIFAR10'"),
        ({"source": "torchvision:FakeData", "options": {"sise": 3}}, "takes no 'sise'; did you mean 'size'"),
        ({"source": "torchvision:FakeData", "split": "train"}, "takes no 'split'"),
        ({"source": "torchvision:FakeData", "download": True}, "takes no 'download'"),
        ({"source": "torchvision:MNIST", "root": "ROOT", "split": "validation"}, "takes no 'split'"),
        ({"source": "torchvision:Kitti", "root": "ROOT"}, "put its files into"),
    ],
)
def test_a_torchvision_set_that_cannot_be_had_is_named(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    given = {key: str(tmp_path) if value == "ROOT" else value for key, value in fields.items()}
    with pytest.raises(ConfigError) as error:
        load_pictures(settings(**given))
    assert str(error.value).startswith("data.source torchvision:")
    assert says in str(error.value)


def test_what_is_for_torchvision_is_refused_elsewhere(folder: Path) -> None:
    with pytest.raises(ValueError, match='are for a source = "torchvision:NAME"'):
        settings(folder, split="train")
