"""Whether a request asks for what is hardened here: labels of a picture, in the place of the vendor's usual model.

What the wires themselves can tell (other operations, other features) they refuse; here is what an owner decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.wire.base import Fault, HttpRequest, NotServedFault, Question
from smoothing_proxy.wire.clarifai_codes import UnknownModelFault
from smoothing_proxy.wire.openai_request import body_of, prompt_in

__all__ = ["check_asked"]


def check_asked(settings: GatewaySettings, vendor: str, request: HttpRequest, question: Question) -> None:
    """Raises NotServedFault for what another model, or another question, would have to answer.

    Clarifai: the model's id has to be one of `clarifai_models`. OpenAI: the labels to choose from have to be told
    as the enum of a JSON schema, so that the answer is one of them or none, whatever else is said; or what is said
    is one of `openai_prompts`, which are known to ask for any label. Their white space does not matter.
    """
    check = _CHECKS.get(vendor)
    if check is not None:
        check(settings, request, question)


def _clarifai(settings: GatewaySettings, _: HttpRequest, question: Question) -> None:
    model = question.model.partition("/")[0]
    if model not in settings.clarifai_models:
        raise UnknownModelFault(model)


def _openai(settings: GatewaySettings, request: HttpRequest, question: Question) -> None:
    if question.labels:
        return
    known = {" ".join(prompt.split()) for prompt in settings.openai_prompts}
    if not known or prompt_in(body_of(request)) not in known:
        raise NotServedFault(
            Fault.BAD_REQUEST,
            "response_format: only a choice of labels is answered here; send them as the enum of a JSON schema.",
        )


_CHECKS: Mapping[str, Callable[[GatewaySettings, HttpRequest, Question], None]] = {
    "clarifai": _clarifai,
    "openai": _openai,
}
