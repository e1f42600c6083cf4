from __future__ import annotations

from pathlib import Path

import pytest

from denoiser_training.classifier_config import load_classifier_config
from denoiser_training.config import load_config
from smoothing_proxy.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted((FOLDER / "training").glob("*.toml"))
CLASSIFIERS = sorted((FOLDER / "classifiers").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_committed_config_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_every_committed_classifier_config_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_classifier_config(path).name == path.stem


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimiser.lrr=1", "optimiser.lrr: unknown key; did you mean 'lr'"),
        ("datta.flip=true", "datta: unknown key; did you mean 'data'"),
        ("phases.0.stepps=1", "phases.0.stepps: unknown key"),
        ("noise.sigma_min=0.9", "the range is empty: sigma_min 0.9 is above sigma_max 0.5"),
        ("surrogates=[]", "looks through [[surrogates]]"),
        ("phases.0.objective={mse=0}", "every objective has weight 0"),
        ("phases.1.objective={consistency=1}", "phases.1: consistency and entropy compare noisy copies"),
        ("phases.1.copies=3", "a phase's batch of 8 is not a multiple of its copies = 3"),
        ('evaluate.classifiers=[{name="mlp",network="mlp"}]', "the same name"),
        ("phases.7.steps=1", "no such entry"),
        ("seed=99999999999999999999", "seed: Input should be less than 9223372036854775808"),
        ("data.crop_px=6", "evaluate.crop_px (or data.crop_px) is 6; SSIM looks at windows of 7x7 pixels"),
        ("evaluate.crop_px=6", "evaluate.crop_px (or data.crop_px) is 6; SSIM looks at windows of 7x7 pixels"),
        ("optimiser", "expected KEY=VALUE"),
        ("surrogates.0.training.copies=[{share=0.5}]", "neither noise nor denoisers"),
        (
            'surrogates.0.training.copies=[{share=0.7,denoisers=["median"]},{share=0.7,denoisers=["gaussian"]}]',
            "their shares sum to 1.4, above 1",
        ),
        ("optimiser.lr=-1", "optimiser.lr: Input should be greater than 0"),
    ],
)
def test_a_fault_is_named_with_its_key_and_the_nearest_known_one(tiny: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(tiny, [override])
    assert says in str(error.value)


def test_a_value_that_leads_nowhere_is_not_repeated(tiny: Path) -> None:
    """It may be the address of a data set, with its signature."""
    with pytest.raises(ConfigError, match=r"--set data\.source\.0: no such entry") as error:
        load_config(tiny, ["data.source='x'", "data.source.0=https://files.example.com/a.zip?signature=SECRET"])
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "best"),
    [
        ([], "accuracy"),
        (["evaluate.best=psnr"], "psnr"),
        (["phases.1.objective={charbonnier=1}"], "psnr"),
        (["phases.1.objective={charbonnier=1}", "evaluate.best=accuracy"], "accuracy"),
    ],
)
def test_the_best_weights_are_the_most_accurate_where_a_phase_looks_through_classifiers(
    tiny: Path, overrides: list[str], best: str
) -> None:
    config = load_config(tiny, overrides)
    assert config.best == best
    assert config.completed().evaluate.best == best


def test_overrides_reach_leaves_lists_and_text(tiny: Path) -> None:
    config = load_config(tiny, ["optimiser.lr=1e-4", "phases.1.steps=7", "data.source=../a b/c.zip", "name='x'"])
    assert (config.optimiser.lr, config.phases[1].steps) == (1e-4, 7)
    assert (config.data.source, config.name) == ("../a b/c.zip", "x")
