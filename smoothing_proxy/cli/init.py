"""`init`: a commented configuration for one classifier. The files in configs/proxy are what it writes."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from smoothing_proxy.errors import ConfigError

__all__ = ["PLACEHOLDER", "TEMPLATES", "configuration", "init"]

PLACEHOLDER = "YOUR-"
"""What a value holds that only the user can fill in."""

_HEAD = """\
# smoothing-proxy in front of {title}.
# Check it before it costs anything: smoothing-proxy doctor --config FILE
# Values with YOUR- in them are for you to fill in. Keys that are commented out are options, or other ways.

[smoothing]
sigma = 0.25                           # standard deviation of the noise, on the [0, 1] pixel scale
alpha = 0.001                          # probability that a printed proof is false, for each picture
target_radius = 0.25                   # l2 on the [0, 1] pixel scale: stop once this is proven, or hopeless
max_queries = 1000                     # and after so many draws at the latest
working_size = "shorter=256,crop=224"  # where the noise is added: "original", "224x224", "longer=640", ...
# method = "fixed"                     # Cohen et al.'s n0 and n draws, in place of target_radius

[denoiser]
name = "natural"                       # photographs; cifar10, wavelet:haar, median:3, identity, or a card's path

"""

_LABELS = """
# Which of its labels count as which class; decide before the first draw. Try it with `smoothing-proxy labels`.
# [labels]
# closed = true                        # drop every label that is not named here
# ignore_case = true
# [labels.groups]
# dog = ["Puppy", "Dog breed"]
"""

_PAID = """
# [encoding]                           # another one than the backend prefers
# format = "jpeg"
# quality = 95

[run]
# pictures_at_once = 4                 # left out, as many as keep the vendor busy
# in_flight = 16                       # requests under way at once; left out, the backend's own number
# family = "bonferroni"                # what all certificates say together; left out, each speaks for itself

[budget]
usd = 20                               # never more, over all resumptions; queries = ... counts queries instead

[transport]
# requests_per_s = 5                   # what your account may ask; left out, it is found while asking
attempts = 6                           # failed sends after which a draw counts as a vote for nothing
"""

_FREE = """
[run]
# pictures_at_once = 4                 # left out, as many as keep the vendor busy
"""

_AWS = """\
[backend]
name = "aws-rekognition"
# Credentials come from boto3's own chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role.
region = "eu-west-1"                   # one that has Rekognition
# profile = "YOUR-PROFILE"
# endpoint = "http://127.0.0.1:8080"   # another address, such as that of `smoothing-proxy simulate aws`
max_labels = 100                       # in one reply, the best first
# concurrency = 16                     # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller; at most 5 MB a copy
# price_usd_per_1000 = 1.00            # what you pay, where it is not the list price,
# price_as_of = "2026-11-21"           # and since when you know
"""

_GOOGLE = """\
[backend]
name = "google-vision"
# An API key in this environment variable. Without it: credentials_file = "service-account.json", or Application
# Default Credentials (`gcloud auth application-default login`).
api_key_env = "GOOGLE_VISION_KEY"
# endpoint = "eu-vision.googleapis.com:443"
max_labels = 10                        # in one reply, the best first
batch = 16                             # copies in one request; each is billed
# concurrency = 8                      # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller
# price_usd_per_1000 = 1.50            # what you pay, where it is not the list price,
# price_as_of = "2026-11-21"           # and since when you know
"""

_AZURE = """\
[backend]
name = "azure-vision"                  # Image Analysis; it retires on 25 September 2028
endpoint = "https://YOUR-RESOURCE.cognitiveservices.azure.com"
key_env = "AZURE_VISION_KEY"           # the environment variable that holds the key
# entra = true                         # sign in with Entra ID instead (needs azure-identity)
version = "4.0"                        # "3.2" is Computer Vision
model_version = "latest"               # a date pins it, so that it cannot change under a run
# concurrency = 16                     # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller
# price_usd_per_1000 = 1.00            # what you pay, where it is not the list price,
# price_as_of = "2026-11-21"           # and since when you know
"""

_CLARIFAI = """\
[backend]
name = "clarifai"
pat_env = "CLARIFAI_PAT"               # the environment variable that holds the personal access token
# The four ids stand in the model's address: clarifai.com/USER/APP/models/MODEL/versions/VERSION
user_id = "YOUR-USER"
app_id = "YOUR-APP"
model_id = "YOUR-MODEL"
model_version = "YOUR-VERSION"         # pins it, so that it cannot change under a run
# concepts = ["dog", "cat"]            # score these alone, as the model spells them
max_concepts = 50                      # in one reply, the best first
batch = 16                             # copies in one request; each is one operation
# concurrency = 8                      # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller
# price_usd_per_1000 = 1.20            # what you pay, where it is not the list price,
# price_as_of = "2026-11-21"           # and since when you know
"""

_OPENAI = """\
[backend]
name = "openai-vision"                 # or any server that speaks chat completions
base_url = "https://api.openai.com/v1"
model = "gpt-4.1-mini-2025-04-14"      # a dated name does not change under a run
key_env = "OPENAI_API_KEY"             # the environment variable that holds the key; "" for servers without keys
# All that can be answered; keep one for the rest.
labels = ["dog", "cat", "bird", "something else"]
detail = "low"                         # of the picture: "auto", "low" or "high"; it decides about the price
# temperature = 0.0                    # "default" for models that take none
# extra = { seed = 7 }                 # further keys of each request
# concurrency = 8                      # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller
# Tokens are sold, not pictures, so there is no list price: put down what a thousand pictures cost YOU.
price_usd_per_1000 = 1.00
price_as_of = ""                       # since when you know
"""

_JSON_API = """\
[backend]
name = "json-api"                      # any vendor that takes a picture over HTTP and answers JSON
url = "https://vision.example.com/classify"
headers = { Authorization = "Bearer {env:VISION_KEY}" }  # an environment variable: credentials only so
body = { image = "{image_base64}", top = 5 }             # or "raw"; or multipart_field = "image" instead
# JSONPaths into a reply such as {"predictions": [{"name": "dog", "percent": 93.5}], "model": "v7"}
labels_path = "$.predictions[*].name"
scores_path = "$.predictions[*].percent"
score_scale = 100                      # the score of full confidence
model_version_path = "$.model"         # "" where the reply does not say
# errors = { "418" = "quota" }         # what a status means where it is not the usual
# request_id_path = "$.id"
max_bytes = 5_000_000                  # of a picture; 0 for no limit
min_side_px = 0                        # smaller copies are enlarged to it
# concurrency = 8                      # requests in flight at once, where [run] in_flight does not say
encoding = "png"                       # "jpeg:95" is smaller
price_usd_per_1000 = 1.00              # what a thousand pictures cost you; 0 for nothing
price_as_of = ""                       # since when you know
"""

_LOCAL = """\
[backend]
# A file (.onnx, .tflite, .pt2, .pt, .joblib, .skops), torchvision/NAME, or your own function as
# package.module:function.
name = "local:YOUR-MODEL.onnx"
labels = "YOUR-LABELS.txt"             # one name per line, in the order of its outputs; or a list
# size = [224, 224]                    # what the network takes, where its file does not say
# mean = [0.485, 0.456, 0.406]         # its preprocessing: (p / 255 * scale - mean) / std
# std = [0.229, 0.224, 0.225]
# output = "logits"                    # what its outputs are: "logits" or "probabilities"
batch_size = 32                        # pictures in one request
top = 10                               # labels in one reply, the best first
"""

TEMPLATES = {
    "aws-rekognition": ("Amazon Rekognition", "aws.toml", _AWS + _LABELS + _PAID),
    "azure-vision": ("Azure AI Vision", "azure.toml", _AZURE + _LABELS + _PAID),
    "clarifai": ("a model of Clarifai's", "clarifai.toml", _CLARIFAI + _LABELS + _PAID),
    "google-vision": ("Google Cloud Vision", "google.toml", _GOOGLE + _LABELS + _PAID),
    "json-api": ("a vendor that answers JSON", "json-api.toml", _JSON_API + _LABELS + _PAID),
    "local": ("a model on this machine", "local.toml", _LOCAL + _LABELS + _FREE),
    "openai-vision": ("an OpenAI-compatible vision model", "openai.toml", _OPENAI + _PAID),
}
"""Backend -> what it is, its file in configs/proxy, and what follows the head."""


def configuration(backend: str) -> str:
    """The commented configuration for a backend, one of TEMPLATES."""
    title, _, tables = TEMPLATES[backend]
    return _HEAD.format(title=title) + tables


@click.command()
@click.option("--backend", type=click.Choice(sorted(TEMPLATES)), default="local", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("proxy.toml"), show_default=True)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(backend: str, out: Path, force: bool) -> None:
    """Write a commented configuration for a classifier, to be filled in."""
    text = configuration(backend)
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{out}: is there already; --force writes over it") from None
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error
    name = shlex.quote(str(out))
    click.echo(f"wrote {out}: a configuration for {backend}; fill in what is yours, then")
    click.echo(f"  smoothing-proxy doctor --config {name}        does it work? at most one query, asked for first")
    click.echo(f"  smoothing-proxy plan FOLDER --config {name}   what a folder would cost; spends nothing")
