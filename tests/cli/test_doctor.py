"""`doctor` names what is wrong and what to do, with the real clients against vendors on the loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from smoothing_proxy.serving.google_grpc import serve_grpc
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.aws import LIMITS
from smoothing_proxy.wire.azure import AzureWire
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault, Wire
from smoothing_proxy.wire.clarifai import ClarifaiWire
from smoothing_proxy.wire.openai import OpenAiWire
from tests.cli.command_line import Invoke
from tests.wire.aws_loopback import KEY, PUG, loopback, rekognition
from tests.wire.aws_loopback import SECRET as AWS_SECRET
from tests.wire.loopback import serving
from tests.wire.wire_server import PANDA, answering

SECRET = "sk-recognisable-0123"
"""Short enough that no shortening of long words takes it out."""

SMOOTHING = '[smoothing]\nsigma = 0.25\nn0 = 10\nn = 90\nworking_size = "96x128"\n[denoiser]\nname = "median:3"\n'
LOCAL = '[backend]\nname = "local:shade_classifier:shade"\n'
BACKENDS = {
    "aws": '[backend]\nname = "aws-rekognition"\nregion = "eu-west-1"\nendpoint = "{url}"\n',
    "azure": '[backend]\nname = "azure-vision"\nendpoint = "{url}"\nkey_env = "VISION_KEY"\n',
    "clarifai": '[backend]\nname = "clarifai"\nbase_url = "{url}"\nuser_id = "u"\napp_id = "a"\nmodel_id = "m"\n'
    'model_version = "v"\npat_env = "VISION_KEY"\n',
    "openai": '[backend]\nname = "openai-vision"\nbase_url = "{url}"\nmodel = "m"\nlabels = ["panda", "dog"]\n'
    'key_env = "VISION_KEY"\nprice_usd_per_1000 = 2.5\n',
    "google": '[backend]\nname = "google-vision"\nendpoint = "{url}"\ninsecure = true\n'
    'api_key_env = "VISION_KEY"\n',
    "json": '[backend]\nname = "json-api"\nurl = "{url}/c"\nbody = "raw"\nlabel_path = "$.label"\n'
    'price_usd_per_1000 = 0\n[backend.headers]\nAuthorization = "Bearer {{env:VISION_KEY}}"\n',
}
WIRES: dict[str, Wire] = {"azure": AzureWire(), "clarifai": ClarifaiWire(), "openai": OpenAiWire()}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_CA_BUNDLE",
        "AWS_ENDPOINT_URL_REKOGNITION",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("VISION_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def examined(invoke: Invoke, text: str, *flags: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, findings by check, and everything that was printed. Nothing in it is a secret."""
    Path("proxy.toml").write_text(text)
    result = invoke("doctor", "--config", "proxy.toml", "--json", *flags)
    for secret in (SECRET, AWS_SECRET):
        assert secret not in result.output
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.exit_code
    (section,) = report["configurations"]
    return result.exit_code, {finding["check"]: finding for finding in section["findings"]}, result.output


@contextmanager
def google(answer: Reply | RequestFault) -> Iterator[str]:
    class Service:
        def verify(self, key: str) -> None:
            if key != SECRET:
                raise RequestFault(Fault.UNAUTHENTICATED, f"the key {key} is not ours")

        async def ask(self, question: Question) -> Sequence[Reply | RequestFault]:
            if isinstance(answer, RequestFault):
                raise answer
            return [answer] * len(question.images)

    service = Service()
    with start_blocking_portal() as portal:
        server = portal.call(partial(serve_grpc, service.ask, service.verify))
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            portal.call(server.stop)


@contextmanager
def aws(answer: Reply | RequestFault) -> Iterator[str]:
    with loopback(lambda request: rekognition(request, answer)) as (url, _):
        yield url


def vendor(name: str, answer: Reply | RequestFault) -> AbstractContextManager[str]:
    servers: dict[str, Callable[[Reply | RequestFault], AbstractContextManager[str]]] = {
        "aws": aws,
        "google": google,
    }
    return servers[name](answer) if name in servers else serving(answering(WIRES[name], answer, [], SECRET))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Where nobody listens, and nobody else can begin to."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("name", ["aws", "azure", "clarifai", "google", "openai"])
def test_a_configuration_that_works_passes_every_check(name: str, invoke: Invoke) -> None:
    with vendor(name, PUG if name == "aws" else PANDA) as url:
        code, found, output = examined(invoke, SMOOTHING + BACKENDS[name].format(url=url), "--yes", "--out", "run")
    assert code == 0, output
    assert list(found) == [
        *("settings", "labels", "denoiser", "backend", "copy", "price", "answer", "proof", "pace", "ledger"),
    ]
    where = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if name == "aws" else "variable VISION_KEY"
    assert where in found["backend"]["text"]
    assert found["answer"]["figures"]["vote"] == ("Dog" if name == "aws" else "panda")
    assert found["answer"]["figures"]["latency_s"] > 0
    assert 1_000 < found["copy"]["figures"]["bytes"] < 96 * 128 * 3
    price = found["price"]["figures"]["price_usd"]
    assert found["proof"]["figures"]["queries_per_1000"] == 101_003
    assert found["proof"]["figures"]["usd_per_1000"] == pytest.approx(101_003 * price)
    assert not Path("run").exists()


FAULTS = [
    (Fault.UNAUTHENTICATED, 2, "the credential is refused"),
    (Fault.FORBIDDEN, 2, "known but not allowed"),
    (Fault.UNKNOWN_OPERATION, 2, "no such address or model"),
    (Fault.QUOTA, 2, "the account's quota is used up"),
    (Fault.IMAGE_TOO_LARGE, 2, "change what it refuses"),
    (Fault.THROTTLED, 3, "one query was too many"),
    (Fault.UNAVAILABLE, 3, "down or overloaded"),
    (Fault.INTERNAL, 3, "down or overloaded"),
]


FOR_AWS = (Fault.UNAUTHENTICATED, Fault.QUOTA, Fault.IMAGE_TOO_LARGE, Fault.THROTTLED)  # boto3 takes its time
CASES = [(name, *row) for name in WIRES for row in FAULTS] + [("aws", *row) for row in FAULTS if row[0] in FOR_AWS]


@pytest.mark.parametrize(("name", "fault", "code", "mend"), CASES)
def test_each_fault_of_a_vendor_has_its_remedy(
    name: str, fault: Fault, code: int, mend: str, invoke: Invoke
) -> None:
    said = RequestFault(fault, f"your key {SECRET} and {AWS_SECRET}")
    with vendor(name, said) as url:
        exit_code, found, output = examined(invoke, SMOOTHING + BACKENDS[name].format(url=url), "--yes")
    assert (exit_code, found["answer"]["status"]) == (code, "fail"), output
    assert mend in found["answer"]["mend"]
    assert found["proof"]["status"] == "ok"
    billed = fault is Fault.INTERNAL
    assert ("billed" in found["answer"]["text"] + found["answer"]["mend"]) is billed


@pytest.mark.parametrize(
    ("fault", "code", "mend"),
    [
        (Fault.UNAUTHENTICATED, 2, "the credential is refused"),
        (Fault.UNKNOWN_OPERATION, 2, "no such address"),
        (Fault.THROTTLED, 3, "too many"),
    ],
)
def test_so_have_googles_over_grpc(fault: Fault, code: int, mend: str, invoke: Invoke) -> None:
    with google(RequestFault(fault, "words")) as url:
        exit_code, found, output = examined(invoke, SMOOTHING + BACKENDS["google"].format(url=url), "--yes")
    assert exit_code == code, output
    assert mend in found["answer"]["mend"]


@pytest.mark.parametrize("name", ["aws", "azure", "google"])
def test_a_wrong_key_is_named_by_its_place(name: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_KEY", "sk-another-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sk-another-secret")
    with vendor(name, PANDA) as url:
        code, found, output = examined(invoke, SMOOTHING + BACKENDS[name].format(url=url), "--yes")
    assert code == 2
    assert ("AWS_SECRET_ACCESS_KEY" if name == "aws" else "VISION_KEY") in found["answer"]["mend"]
    assert "sk-another-secret" not in output


@pytest.mark.parametrize("name", ["aws", "azure", "json"])
def test_tls_towards_a_plain_port_is_told_from_a_closed_one(name: str, invoke: Invoke, closed_port: int) -> None:
    with serving(lambda _: HttpReply(200)) as url:
        tls = examined(invoke, SMOOTHING + BACKENDS[name].format(url=url.replace("http:", "https:")), "--yes")
    shut = examined(invoke, SMOOTHING + BACKENDS[name].format(url=f"http://127.0.0.1:{closed_port}"), "--yes")
    assert (tls[0], shut[0]) == (2, 2)
    assert "`verify`" in tls[1]["answer"]["mend"]
    assert "nothing answers there" in shut[1]["answer"]["mend"]


def test_a_dead_proxy_is_named(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://me:proxy-word@127.0.0.1:{closed_port}")
    text = SMOOTHING + BACKENDS["aws"].format(url="http://vision.example.com")
    code, found, output = examined(invoke, text, "--yes")
    assert code == 2
    assert "HTTPS_PROXY" in found["answer"]["mend"]
    assert "proxy-word" not in output
    assert found["backend"]["status"] == "warn"
    assert "in clear" in found["backend"]["text"]


@pytest.mark.parametrize(
    ("text", "check", "words"),
    [
        ("[smoothing]\nsigma = 0.25\nsigmma = 1\n" + LOCAL, "settings", "did you mean 'sigma'"),
        (LOCAL, "settings", "--sigma"),
        (SMOOTHING + LOCAL + "[labels]\nclosed = true\n", "settings", "closed"),
        (SMOOTHING.replace("median:3", "medien:3") + LOCAL, "denoiser", "did you mean 'median'"),
        (SMOOTHING.replace("median:3", "digits").replace("0.25", "0.9") + LOCAL, "denoiser", "trained for sigma"),
        (SMOOTHING + '[backend]\nname = "aws-rekogniton"\n', "backend", "did you mean 'aws-rekognition'"),
        (
            SMOOTHING + '[backend]\nname = "aws-rekognition"\nregion = "eu-wst-1"\n',
            "backend",
            "did you mean 'eu-w",
        ),
        (SMOOTHING + BACKENDS["aws"] + "concurrency = '16'\n", "backend", "concurrency: expected a number"),
        (SMOOTHING + BACKENDS["azure"].replace("VISION_KEY", "OTHER"), "backend", "variable OTHER is not set"),
        (
            SMOOTHING + BACKENDS["openai"] + '[labels]\nclosed = true\n[labels.groups]\nbird = ["owl"]\n',
            "labels",
            "drops every answer",
        ),
        (SMOOTHING + BACKENDS["aws"] + '[encoding]\nformat = "raw"\n', "copy", "'raw' is not taken"),
    ],
)
def test_what_is_wrong_before_anything_is_sent_is_named(
    text: str, check: str, words: str, invoke: Invoke, closed_port: int
) -> None:
    code, found, output = examined(invoke, text.replace("{url}", f"http://127.0.0.1:{closed_port}"))
    assert (code, found[check]["status"]) == (2, "fail"), output
    assert words in found[check]["text"]


def test_a_key_pasted_where_a_variables_name_belongs_is_hidden(invoke: Invoke) -> None:
    text = SMOOTHING + BACKENDS["azure"].format(url="http://127.0.0.1:1").replace("VISION_KEY", "sk-pasted-key-1")
    code, found, output = examined(invoke, text)
    assert (code, found["backend"]["figures"]) == (2, {"error": "MissingCredentialError"})
    assert "sk-pasted-key-1" not in output


def test_googles_own_chain_is_looked_at_before_a_query(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/file.json")
    code, found, _ = examined(invoke, SMOOTHING + '[backend]\nname = "google-vision"\n')
    assert (code, found["backend"]["status"], found["answer"]["status"]) == (2, "fail", "skip")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in found["backend"]["text"]


def test_a_copy_that_has_to_be_made_to_fit_is_told_as_what_it_is_sent(invoke: Invoke) -> None:
    text = '[smoothing]\nsigma = 0.5\nn = 90\nworking_size = "1500x1500"\n' + BACKENDS["aws"].format(
        url="http://127.0.0.1:1"
    )
    code, found, _ = examined(invoke, text)
    assert (code, found["copy"]["status"]) == (0, "warn")
    assert found["copy"]["figures"]["bytes"] <= LIMITS.image_bytes
    assert "too large as png, so made to fit: 1500x1500 px as jpeg" in found["copy"]["text"]
    assert found["answer"]["status"] == "warn"


@pytest.mark.parametrize(("flags", "asked"), [((), 0), (("--yes",), 1)])
def test_money_is_spent_once_after_it_was_said_and_only_when_told_to(
    flags: tuple[str, ...], asked: int, invoke: Invoke
) -> None:
    seen: list[HttpRequest] = []
    with serving(answering(WIRES["openai"], PANDA, seen, SECRET)) as url:
        code, found, output = examined(invoke, SMOOTHING + BACKENDS["openai"].format(url=url), *flags)
    assert (code, len(seen)) == (0, asked)
    assert "one query to openai-vision, $0.0025" in output
    assert found["answer"]["status"] == ("ok" if asked else "warn")
    assert found["price"]["status"] == "warn"  # nobody said of which day it is


def test_a_person_reads_lines_and_a_local_model_is_asked_without_a_word(invoke: Invoke, folder: Path) -> None:
    Path("proxy.toml").write_text(SMOOTHING + LOCAL + "[budget]\nqueries = 500\n")
    result = invoke("doctor", "proxy.toml", "--image", folder / "5.png", "--out", "run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "proxy.toml"
    assert [line.split()[0] for line in lines[1:] if not line.lstrip().startswith("->")] == ["ok"] * 10
    assert "votes for light" in result.stdout
    assert "enough for 4 pictures" in result.stdout
    assert "run: can be written" in result.stdout


def test_several_configurations_have_a_section_each_and_the_worst_code(invoke: Invoke) -> None:
    Path("a.toml").write_text(SMOOTHING + LOCAL)
    Path("b.toml").write_text(SMOOTHING + LOCAL.replace(':shade"', ':broken"'))
    Path("c.toml").write_text("[smoothing\n")
    codes = [
        invoke("doctor", *names).exit_code for names in (["a.toml"], ["a.toml", "b.toml"], ["b.toml", "c.toml"])
    ]
    assert codes == [0, 3, 2]
    report = json.loads(invoke("doctor", "a.toml", "--config", "b.toml", "--json").stdout)
    assert [section["config"] for section in report["configurations"]] == ["a.toml", "b.toml"]
    assert "the model file is gone" in report["configurations"][1]["findings"][6]["text"]


def test_flags_stand_for_a_file(invoke: Invoke) -> None:
    result = invoke(
        "doctor", "--backend", "local:shade_classifier:shade", "--sigma", "0.2", "--denoiser", "median:3"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("command line\n")


@pytest.mark.parametrize("out", ["file.txt", "file.txt/run"])
def test_a_folder_that_cannot_be_is_a_failure(out: str, invoke: Invoke) -> None:
    Path("file.txt").write_text("")
    code, found, _ = examined(invoke, SMOOTHING + LOCAL, "--out", out)
    assert (code, found["ledger"]["status"]) == (2, "fail")


def test_the_pace_is_the_lesser_of_rate_and_latency(invoke: Invoke) -> None:
    text = SMOOTHING + BACKENDS["aws"] + "[transport]\nrequests_per_s = 2\n"
    with aws(Reply((ScoredLabel("Dog", 0.9),), "3.0")) as url:
        _, found, _ = examined(invoke, text.replace("{url}", url), "--yes")
    assert found["pace"]["figures"]["queries_per_s"] == 2.0
    assert found["pace"]["figures"]["seconds"] == 101_000 / 2
