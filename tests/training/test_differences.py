from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from denoiser_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from denoiser_training.config import Config, load_config
from denoiser_training.differences import differences
from smoothing_proxy.errors import ConfigError


def dumped(path: Path, *overrides: str) -> dict[str, Any]:
    return load_config(path, overrides).model_dump(mode="json")


def test_two_configs_differ_by_their_dotted_keys_without_where_they_run(tiny: Path) -> None:
    new = dumped(tiny, "phases.0.steps=3", "noise.sigma_max=0.7", "runtime.threads=2", "data.cache=''")
    assert differences(dumped(tiny), new, Config) == ["noise.sigma_max", "phases.0.steps"]


OLDER = [
    ("data", "split"),
    ("data", "root"),
    ("phases", 1, "crop_px"),
    ("surrogates", 0, "training", "label_smoothing"),
    ("surrogates", 0, "training", "optimiser", "clip_norm"),
    ("export",),
]


@pytest.mark.parametrize("path", OLDER, ids=lambda path: ".".join(map(str, path)))
def test_a_key_that_an_older_version_did_not_know_had_its_default(tiny: Path, path: tuple[Any, ...]) -> None:
    old, new = dumped(tiny), dumped(tiny)
    inner: Any = old
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    assert differences(old, new, Config) == differences(new, old, Config) == []
    assert differences(old, new)


def test_a_checkpoint_from_before_a_key_was_known_is_gone_on_with(tiny: Path, tmp_path: Path) -> None:
    old, new = dumped(tiny), dumped(tiny)
    del old["data"]["cache"], old["data"]["split"], old["surrogates"][0]["training"]["label_smoothing"]
    empty: dict[str, Any] = {key: {} for key in ("network", "optimiser", "sums", "journal")}
    written = Checkpoint(json.dumps(old), 5, average=None, count=0, seconds=1.0, best=None, **empty)
    write_checkpoint(tmp_path / "last.ckpt", written)
    assert read_checkpoint(tmp_path / "last.ckpt", new, Config) == written
    new["surrogates"][0]["training"]["label_smoothing"] = 0.1
    with pytest.raises(ConfigError, match=r"different: surrogates\.0\.training\.label_smoothing"):
        read_checkpoint(tmp_path / "last.ckpt", new, Config)


def test_a_new_key_with_another_value_is_a_difference(tiny: Path) -> None:
    old, new = dumped(tiny), dumped(tiny, "surrogates.0.training.label_smoothing=0.1")
    del old["surrogates"][0]["training"]["label_smoothing"]
    assert differences(old, new, Config) == ["surrogates.0.training.label_smoothing"]
    del old["name"]
    assert differences(old, new, Config) == ["name", "surrogates.0.training.label_smoothing"]
