"""What cannot work in a study is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from smoothing_proxy.cli.app import app
from tests.redteam.study_nets import STUDY, shaded_pictures

NETS = "tests.redteam.study_nets"
CARD = 'network = "denoiser_training.study_networks:card"\npath = "gone.json"'
WEIGHTS = (
    'network = "denoiser_training.study_networks:weights"\narchitecture = "cifar-resnet"\nclasses = "cifar10"\n'
    'path = "gone.safetensors"'
)
NET = f'network = "{NETS}:shades"'
FAR = 'name = "far"\nattack = "eot-pgd"'
FAR_OPTIONS = 'norm = "l2"\neps = 5.0\noptions = { steps = 3 }'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 3", "sed = 3", "sed: unknown key; did you mean 'seed'"),
        ("votes = 9", "vote = 9", "defences.2.smoothing.vote: unknown key; did you mean 'votes'"),
        ("made_on", "make_on", "attacks.0.make_on: unknown key; did you mean 'made_on'"),
        ('classifiers = ["net"]', 'classifiers = ["nat"]', "no classifier 'nat'; did you mean 'net'"),
        ('"none/net"', '"nine/net"', "no row 'nine/net'; did you mean 'none/net'"),
        ('"none/net"', '"none"', "is none/net or none/steeper; say which"),
        ('name = "near"', 'name = "far"', "'far' stands twice among the attacks"),
        ('["none", "blur"]', '["blurr"]', "no defence 'blurr'; did you mean 'blur'"),
        ("n = 40", "n = 4", "n = 4 draws can certify nothing at alpha = 0.001"),
        (FAR, 'name = "far"\nattack = "eot-gpd"', "no attack is named 'eot-gpd'; did you mean 'eot-pgd'"),
        ('norm = "l2"\neps = 5.0', 'norm = "l2"', "attack 'far': eot-pgd: say how far it may go with eps"),
        ("{ steps = 3 }", "{ step = 3 }", "options: step: unknown key; did you mean 'steps'"),
        ('attack = "descend"', 'attack = "descend"\nnorm = "linf"', "descend works in l2, not in linf"),
        (
            f"{FAR}\n{FAR_OPTIONS}",
            'name = "far"\nattack = "square"\nnorm = "l2"\neps = 5.0',
            "at least 10 px, not 8",
        ),
        (FAR, f"{FAR}\naims = true", "aims = true: for attacks with an option `aim`"),
        (FAR, f'{FAR}\nsurrogate = "steeper"', "transfer needs one, and no other attack takes one"),
        (FAR, f'{FAR}\nsurrogate = "steep"', "no surrogate 'steep'; did you mean 'steeper'"),
        ("gaussian:1", "gausian:1", "defence 'blur': unknown denoiser 'gausian'"),
        ("median:3", "wavelet:db8", "too small for this wavelet"),
        ('source = "pictures"', 'source = "nowhere"', "nowhere: no such folder"),
        (
            'source = "pictures"',
            'source = "pictures/dark"',
            "expected a sub-folder for each class, or data.labels",
        ),
        ('source = "pictures"', 'source = "mixed"', "pictures of 2 sizes, such as (8, 8) and (9, 9) px"),
        (NET, CARD, "classifier 'net': gone.json: not a classifier's card with its weights"),
        (NET, WEIGHTS, "gone.safetensors"),
        (NET, 'network = "local:gone.pt2"', "gone.pt2: no such file"),
        (NET, 'network = "shades"', 'expected "local:..." or "package.module:function"'),
        (NET, f'network = "{NETS}:shade"', "has no attribute 'shade'"),
        (NET, f"{NET}\nstep = 1", "unexpected keyword argument 'step'"),
        (NET, f'network = "{NETS}:no_module"', "made a object, not a torch module"),
        (NET, f'network = "{NETS}:animals"', "'net' has 3 classes, and none is 'dark', a label of the pictures"),
        (NET, f'network = "{NETS}:shades_of_more"', "outputs [1, 3] do not fit its 4 classes"),
    ],
)
def test_a_study_that_cannot_work_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shaded_pictures(tmp_path / "pictures", each=1)
    for side in (8, 9):
        (tmp_path / "mixed" / f"{side}").mkdir(parents=True)
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / "mixed" / f"{side}" / "0.png")
    assert old in STUDY
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new, 1))
    result = CliRunner().invoke(app, ["study", "study.toml", "--out", "out"])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_surrogate_of_other_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shaded_pictures(tmp_path / "pictures", each=1)
    text = STUDY.replace('made_on = "none/net"', 'made_on = "none/net"\nsurrogate = "other"', 1)
    text = text.replace(FAR, 'name = "far"\nattack = "transfer"').replace("options = { steps = 3 }", "", 1)
    text += f'\n[[classifiers]]\nname = "other"\nnetwork = "{NETS}:turned"\n'
    (tmp_path / "study.toml").write_text(text)
    result = CliRunner().invoke(app, ["study", "study.toml", "--out", "out"])
    assert result.exit_code == 2, result.output
    assert "surrogate 'other' and 'net' have not the same classes (3 and 3 of them)" in result.stderr
