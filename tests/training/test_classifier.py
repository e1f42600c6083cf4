from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from denoiser_training.__main__ import main
from denoiser_training.batches import Place, centre_crops, to_unit
from denoiser_training.classifier import ClassifierTask
from denoiser_training.classifier_card import read_classifier_card
from denoiser_training.config import SurrogateSettings
from denoiser_training.data import digits, split
from denoiser_training.surrogates import load_surrogate
from smoothing_proxy.errors import ConfigError

CONFIG = """
name = "reader"
network = "small-cnn"
options = { widths = [12, 24] }
evaluate_every = 20
log_every = 5

[data]
source = "digits"
license = "test"
crop_px = 8
pad_px = 1
flip = false
validation_every = 5

[training]
steps = 60
label_smoothing = 0.05
copies = [
  { share = 0.2, noise = { sigma_min = 0.05, sigma_max = 0.2 } },
  { share = 0.1, denoisers = ["median:3"] },
]

[training.optimiser]
batch = 32
lr = 2e-2
warm_up_steps = 5
precision = "fp32"

[runtime]
threads = 1
device = "cpu"
checkpoint_every = 7
"""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets torch's threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A classifier of digits that trains in a second."""
    path = tmp_path / "reader.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def run(config: Path, out: Path, *overrides: str) -> int:
    return main(["classifier", str(config), "--out", str(out), *(["--set", *overrides] if overrides else [])])


def rows(path: Path) -> list[dict[str, str]]:
    """Every row but for the one column that tells of time."""
    table = csv.DictReader(path.read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "pictures_per_s"} for row in table]


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "reader.json").read_text())["figures"]
    return found


def held_out_accuracy(settings: SurrogateSettings) -> float:
    _, validation = split(digits(), 5)
    assert validation.labels is not None
    with torch.no_grad():
        answers = load_surrogate(settings)(to_unit(centre_crops(validation, 8))).argmax(1)
    return 100 * float((answers == validation.labels).float().mean())


def test_one_command_trains_a_classifier_and_writes_its_card(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(config, out) == 0
    assert capsys.readouterr().out.rstrip().endswith("reader.json")
    card, weights = read_classifier_card(out / "reader.json")
    assert (card.classes, card.side_px, card.start) == (tuple("0123456789"), 8, "random weights")
    assert card.schedule == (
        "60 steps of cross entropy at lr 0.02, batch 32, 8 px crops of pictures padded by 1 px, "
        "label smoothing 0.05; 20 % as copies: noise 0.05-0.2; 10 % as copies: median:3 told sigma 0.1"
    )
    after: Any = card.figures["after"]
    assert set(after) == {"clean", "noise 0.05-0.2", "median:3"}
    clean = after["clean"]
    assert clean["low"] < clean["accuracy"] < clean["high"]
    assert clean["accuracy"] > 30  # chance is 10
    for settings in (
        SurrogateSettings(name="s", network="card", weights=out / "reader.json"),
        SurrogateSettings(name="s", network="small-cnn", weights=weights),
    ):
        assert held_out_accuracy(settings) == pytest.approx(clean["accuracy"], abs=1e-3)
    assert {row["step"] for row in rows(out / "validation.csv")} == {"20", "40", "60"}


def test_broken_off_in_the_middle_it_resumes_to_the_same_weights(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(config, tmp_path / "whole") == 0
    losses = ClassifierTask.losses

    def losses_or_break(task: ClassifierTask, network: Any, place: Place, part: slice) -> dict[str, Tensor]:
        if place.step == 47:
            raise KeyboardInterrupt
        return losses(task, network, place, part)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTask, "losses", losses_or_break)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "broken")
    assert not (tmp_path / "broken/reader.json").exists()
    assert run(config, tmp_path / "broken", "data.cache=''") == 0
    for name in ("metrics.csv", "validation.csv"):
        assert rows(tmp_path / "broken" / name) == rows(tmp_path / "whole" / name)
    ones, others = ((tmp_path / out / "reader.safetensors").read_bytes() for out in ("whole", "broken"))
    assert ones == others
    assert run(config, tmp_path / "broken", "training.steps=61") == 2


def test_it_starts_from_given_weights_also_of_other_classes(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path / "first") == 0
    start = f"start={tmp_path / 'first/reader.safetensors'}"
    still = ("training.optimiser.lr=1e-12", "training.steps=2", "training.copies=[]")
    assert run(config, tmp_path / "second", start, *still) == 0
    first = figures(tmp_path / "first")["after"]["clean"]
    before, after = (figures(tmp_path / "second")[when] for when in ("before", "after"))
    assert before["clean"] == first
    assert abs(after["clean"]["right"] - first["right"]) <= 10  # batch norm has seen two more batches
    two = tmp_path / "two"
    pictures(two)
    test = f"test={{source='{two}', license='test', crop_px=8, limit=6}}"
    further = (f"data.source={two}", "training.steps=2", "training.copies=[]", "data.validation_every=2", test)
    assert run(config, tmp_path / "third", start, *further) == 0
    for when in ("before", "after"):
        found = figures(tmp_path / "third")[when]
        assert set(found) == {"clean", "test clean"}
        assert found["test clean"]["accuracy"] == pytest.approx(100 * found["test clean"]["right"] / 6, abs=1e-3)
    card, _ = read_classifier_card(tmp_path / "third/reader.json")
    assert card.classes == ("dark", "light")
    assert card.start.startswith("reader.safetensors (sha256 ")
    surrogate = load_surrogate(SurrogateSettings(name="s", network="card", weights=tmp_path / "third/reader.json"))
    assert surrogate.classes(8) == 2


def pictures(folder: Path) -> None:
    """Ten dark and ten light pictures of 12x12."""
    import numpy as np
    from PIL import Image

    for name, low in (("dark", 0), ("light", 128)):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng([low, i]).integers(low, low + 128, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def three_outputs() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def four_pixels() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))


@pytest.mark.parametrize(
    ("network", "extra"),
    [
        ("torchvision:squeezenet1_1", ("input_px=32",)),
        ("torchvision:mobilenet_v3_small", ("input_px=32",)),
        (f"{__name__}:three_outputs", ()),
        ("mlp", ("input_px=6", "options={width=5}")),
        ("cifar-resnet", ("options={depth=8}",)),
    ],
)
def test_every_kind_of_network_is_trained_and_found_again(
    config: Path, tmp_path: Path, network: str, extra: tuple[str, ...]
) -> None:
    pictures(tmp_path / "two")
    steps = ("training.steps=2", "training.copies=[]", "training.optimiser.batch=4", "options={}")
    few = (f"data.source={tmp_path / 'two'}", "data.validation_every=2", *steps)
    assert run(config, tmp_path / "out", f"network={network}", *few, *extra) == 0
    card, weights = read_classifier_card(tmp_path / "out/reader.json")
    settings = SurrogateSettings(name="s", network="card", weights=tmp_path / "out/reader.json")
    surrogate = load_surrogate(settings)
    assert surrogate.classes(8) == (3 if "three" in network else 2)
    by_hand = SurrogateSettings(name="s", network=network, weights=weights, input_px=card.input_px)
    crops = torch.rand(3, 3, 8, 8)
    assert torch.equal(load_surrogate(by_hand)(crops), surrogate(crops))
    again = (f"start={tmp_path / 'out/reader.json'}", "network=card")
    assert run(config, tmp_path / "again", *few, *again, *extra[:1]) == 0
    assert read_classifier_card(tmp_path / "again/reader.json")[0].network == network


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.crop_px=16"], "lower crop_px"),
        (["network=small-cn"], "did you mean 'small-cnn'"),
        (["options={width=3}"], "no option 'width'"),
        (["start=nowhere.safetensors"], "nowhere.safetensors"),
        (["start=nowhere.json", "network=card"], "nowhere.json: not a classifier's card"),
        (["network=card"], "needs the card's path"),
        ([f"network={__name__}:three_outputs"], "do not fit 10 classes"),
        ([f"network={__name__}:four_pixels"], "cannot take these crops (set input_px)"),
        (['training.copies=[{share=1,denoisers=["medan"]}]'], "did you mean 'median'"),
        (["training.stepps=3"], "training.stepps: unknown key; did you mean 'steps'"),
        (["test={source='TWO', license='-', crop_px=8}"], "has not the classes of digits"),
        (["data.source=FLAT"], "needs one sub-folder of pictures per class"),
    ],
)
def test_bad_input_ends_before_the_first_step(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], says: str
) -> None:
    pictures(tmp_path / "two")
    overrides = [
        text.replace("FLAT", str(tmp_path / "two/dark")).replace("TWO", str(tmp_path / "two"))
        for text in overrides
    ]
    assert run(config, tmp_path / "out", *overrides) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out/metrics.csv").exists()


def test_weights_that_are_not_the_cards_are_refused(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path / "out", "training.steps=1", "training.copies=[]") == 0
    card, weights = tmp_path / "out/reader.json", tmp_path / "out/reader.safetensors"
    settings = SurrogateSettings(name="s", network="card", weights=card)
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    with pytest.raises(ConfigError, match=r"reader\.safetensors: sha256 is .*, the card of 'reader' says"):
        load_surrogate(settings)
    card.write_text("[]")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        load_surrogate(settings)


def test_an_evaluation_takes_it_for_a_target_by_its_card(config: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "two")
    few = (f"data.source={tmp_path / 'two'}", "training.copies=[]", "data.validation_every=2")
    assert run(config, tmp_path / "out", *few) == 0
    (tmp_path / "evaluation.toml").write_text(f"""
name = "against-the-reader"
denoisers = ["identity"]
data = {{ source = "{tmp_path / "two"}", license = "test", crop_px = 8 }}
certify = {{ sigma = 0.12, n0 = 5, n = 40 }}
targets = [{{ name = "reader", network = "card", weights = "{tmp_path / "out/reader.json"}" }}]
runtime = {{ device = "cpu", threads = 1 }}
""")
    assert main(["evaluate", str(tmp_path / "evaluation.toml"), "--out", str(tmp_path / "table")]) == 0
    (row,) = json.loads((tmp_path / "table/evaluation.json").read_text())["rows"]
    assert row["clean"] > 0.8
    assert row["origin"].startswith("reader (small-cnn, sha256 ")
