from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import safetensors.torch
import torch

from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.errors import DenoiserError, WeightsMismatchError
from tests.denoisers.noisy_pictures import one_thread, provenance, rewrite, save_untrained

ARCHITECTURES = [("unet", {"widths": [4, 8], "blocks": 1}), ("dncnn", {"width": 8, "depth": 4})]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def exercised(architecture: str, options: dict[str, Any]) -> torch.nn.Module:
    """A network whose batch statistics, if it has any, are no longer what they start as."""
    torch.manual_seed(0)
    network = build(architecture, options)
    network(torch.rand(4, 3, 8, 8), 0.25)
    return network.eval()


@pytest.mark.parametrize(("architecture", "options"), ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2e-3)])
def test_saved_weights_load_as_the_same_network(
    tmp_path: Path,
    architecture: str,
    options: dict[str, Any],
    dtype: Literal["float32", "float16"],
    tolerance: float,
) -> None:
    network = exercised(architecture, options)
    described = provenance(architecture=architecture, options=options, figures={"psnr_db": 24.3})
    path = weights.save(tmp_path / "new" / "folder", network.state_dict(), described, dtype=dtype)

    card, loaded = weights.load(path)
    noisy = torch.rand(2, 3, 9, 8)
    with torch.inference_mode():
        assert (network(noisy, 0.25) - loaded(noisy, 0.25)).abs().max() <= tolerance
    assert not loaded.training
    assert not any(tensor.requires_grad for tensor in loaded.parameters())
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    assert card.model_dump(include=set(weights.Provenance.model_fields)) == described.model_dump()
    assert (card.dtype, card.weights) == (dtype, "tiny.safetensors")
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_weights_load_by_their_own_path_too(tmp_path: Path) -> None:
    card, _ = weights.load(save_untrained(tmp_path).with_suffix(".safetensors"))
    assert card.name == "tiny"


def test_loading_takes_nothing_from_the_random_generator(tmp_path: Path) -> None:
    path = save_untrained(tmp_path)
    before = torch.random.get_rng_state()
    weights.load(path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_saving_again_replaces_the_pair(tmp_path: Path) -> None:
    first = save_untrained(tmp_path)
    again = save_untrained(tmp_path, license="MIT", dtype="float16")
    assert again == first
    assert weights.load(again)[0].license == "MIT"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sigma_min": 0.6}, "sigma_min 0.6 is above sigma_max 0.5"),
        ({"sigma_min": 0.0}, "sigma_min: Input should be greater than 0"),
        ({"sigma_max": "wide"}, "sigma_max: Input should be a valid number"),
        ({"architecture": None}, "architecture: Field required"),
        ({"archtecture": "unet"}, "archtecture: unknown key; did you mean 'architecture'?"),
        ({"architecture": "unett"}, "unknown architecture 'unett'; did you mean 'unet'?"),
        ({"options": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"weights": "../../etc/passwd"}, "weights: String should match"),
        ({"weights": "other.safetensors"}, "other.safetensors: no such weights file"),
        ({"sha256": "abc"}, "sha256: String should match"),
        ({"format": 2}, "format: Input should be 1"),
        ({"created": "yesterday"}, "created: Input should be a valid datetime"),
        ({"min_side_px": 0}, "min_side_px"),
    ],
)
def test_a_card_that_is_wrong_is_refused_by_its_field(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    path = save_untrained(tmp_path)
    rewrite(path, **fields)
    with pytest.raises(DenoiserError) as refusal:
        weights.load(path)
    assert said in str(refusal.value)
    assert "tiny.json" in str(refusal.value) or "weights" in fields or "architecture" in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff"])
def test_a_card_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DenoiserError, match="not a denoiser card"):
        weights.load(path)


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DenoiserError, match="no such denoiser card"):
        weights.load(tmp_path / "none.json")


@pytest.mark.parametrize("place", [0, 60, -1])
def test_one_changed_byte_of_the_weights_is_refused(tmp_path: Path, place: int) -> None:
    path = save_untrained(tmp_path)
    file = path.with_suffix(".safetensors")
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsMismatchError, match=r"sha256 is .* the card of 'tiny' says"):
        weights.load(path)


def rehashed(path: Path, data: bytes, **fields: Any) -> None:
    """Put other weights beside a card that vouches for them."""
    path.with_suffix(".safetensors").write_bytes(data)
    rewrite(path, sha256=hashlib.sha256(data).hexdigest(), **fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tail.bias": None}, "tail.bias is missing"),
        ({"tail.bias": torch.zeros(4)}, r"tail.bias is \[4\], expected \[3\]"),
        ({"extra": torch.zeros(1)}, "extra is unknown"),
        ({"tail.bias": torch.zeros(3, dtype=torch.float16)}, "tail.bias is torch.float16, the card says float32"),
    ],
)
def test_tensors_that_are_not_the_cards_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], said: str
) -> None:
    path = save_untrained(tmp_path)
    tensors = safetensors.torch.load_file(path.with_suffix(".safetensors")) | change
    rehashed(path, safetensors.torch.save({key: tensor for key, tensor in tensors.items() if tensor is not None}))
    with pytest.raises(WeightsMismatchError, match=said):
        weights.load(path)


def test_weights_of_another_architecture_are_refused_with_a_short_list(tmp_path: Path) -> None:
    path = save_untrained(tmp_path)
    rewrite(path, architecture="dncnn", options={})
    with pytest.raises(WeightsMismatchError, match=r"layers.0.weight is missing.* and \d+ more"):
        weights.load(path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = save_untrained(tmp_path)
    rehashed(path, b"garbage" * 100)
    with pytest.raises(DenoiserError, match="not a safetensors file"):
        weights.load(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".PTH"])
def test_a_path_to_a_pickle_is_refused_before_it_is_read(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DenoiserError, match=r"pickled weights are refused.*export them as safetensors"):
        weights.load(tmp_path / f"denoiser{suffix}")


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("container", ["pickle", "zip"])
def test_a_pickle_that_is_named_safetensors_is_refused_and_never_run(tmp_path: Path, container: str) -> None:
    path, victim = save_untrained(tmp_path), tmp_path / "victim"
    if container == "pickle":
        data = pickle.dumps(Trap(victim))
    else:
        torch.save(Trap(victim), tmp_path / "trap")
        data = (tmp_path / "trap").read_bytes()
    rehashed(path, data)
    with pytest.raises(DenoiserError, match="pickled weights are refused"):
        weights.load(path)
    assert not victim.exists()


def test_a_safetensors_header_that_begins_like_a_pickle_loads(tmp_path: Path) -> None:
    path = save_untrained(tmp_path)
    data = path.with_suffix(".safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    alike = int.from_bytes(b"\x80\x04", "little") + (length // 65536 + 1) * 65536
    header = data[8 : 8 + length] + b" " * (alike - length)
    rehashed(path, alike.to_bytes(8, "little") + header + data[8 + length :])
    assert path.with_suffix(".safetensors").read_bytes()[:2] == b"\x80\x04"
    assert weights.load(path)[0].name == "tiny"


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", float("nan")), ("float32", float("inf")), ("float16", 1e6)]
)
def test_weights_that_are_not_finite_as_stored_are_not_saved(tmp_path: Path, dtype: Any, value: float) -> None:
    described = provenance()
    state = build(described.architecture, described.options).state_dict()
    state["tail.bias"][1] = value
    with pytest.raises(DenoiserError, match=r"tail\.bias holds NaN or infinity"):
        weights.save(tmp_path, state, described, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_architecture_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match="not a unet"):
        weights.save(tmp_path, build("dncnn", {"depth": 4}).state_dict(), provenance())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DenoiserError, match="cannot write the denoiser 'tiny'"):
        save_untrained(tmp_path / "file")


def test_a_crash_between_the_two_files_is_noticed(tmp_path: Path) -> None:
    card = save_untrained(tmp_path)
    old = card.read_bytes()
    save_untrained(tmp_path, dtype="float16")
    card.write_bytes(old)
    with pytest.raises(WeightsMismatchError, match="sha256"):
        weights.load(card)


def test_the_card_is_readable_json_with_a_dated_zone(tmp_path: Path) -> None:
    fields = json.loads(save_untrained(tmp_path).read_text())
    assert fields["created"] == "2026-01-01T00:00:00Z"
    assert fields["format"] == 1
