"""What a verdict says about each label, as a document: what is proven, and what is not, and why."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ConfidenceProof", "LabelProof", "LabelProofs", "Unproven"]

UNIT = Field(ge=0, le=1, allow_inf_nan=False)

AT_LEAST_0 = Field(default=None, ge=0, allow_inf_nan=False)

Unproven: TypeAlias = Literal["not tested", "too few draws", "too few votes"]
"""Why there is no radius: the selection draws did not choose this label; or the plan took so few draws that they
could not prove it if all of them agreed; or they do not agree enough."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # as the verdict that it is kept in


class ConfidenceProof(_Document):
    """The median confidence over the estimation draws, and where it stays while the picture changes.

    radius, input_radius: as in LabelProof, chosen before the draws. low: None where the draws are too few for any
    bound. high: None likewise, and where so many draws failed that nothing bounds it from above.
    """

    median: float = Field(ge=0, allow_inf_nan=False)
    low: float | None = AT_LEAST_0
    high: float | None = AT_LEAST_0
    radius: float = Field(gt=0, allow_inf_nan=False)
    input_radius: float | None = AT_LEAST_0


class LabelProof(_Document):
    """One label, as the label map writes it.

    present: True stays present and False stays absent within radius; None: neither is proven, and radius and
    input_radius are None. radius, input_radius: l2, [0, 1] pixel scale, as in the verdict. p_lower: bound on the
    probability of a draw that says so; None where it was not tested. votes: of the estimation draws that were
    answered, for "present" and "absent". unproven: why; None where it is proven.
    """

    label: str
    present: bool | None = None
    radius: float | None = AT_LEAST_0
    input_radius: float | None = AT_LEAST_0
    p_lower: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    votes: dict[str, int]
    confidence: ConfidenceProof | None = None
    unproven: Unproven | None = None


class LabelProofs(_Document):
    """All of them hold together but for a probability of alpha, beside the verdict's own label at its alpha.

    threshold: the confidence from which on a label counts as present. alpha_each: what each of the tested claims
    had of it for its presence (Bonferroni); where confidences are bounded, half of alpha is shared out to them in
    the same way. selection: draws that chose the claims and prove nothing. estimation: the others, which alone
    prove. failed: of both. sequential: the votes decided how many draws there were, so that the bounds are those
    that hold at any time.
    """

    threshold: float = Field(gt=0, allow_inf_nan=False)
    alpha: float = UNIT
    alpha_each: float = UNIT
    tested: int = Field(ge=0)
    selection: int = Field(ge=0)
    estimation: int = Field(ge=0)
    failed: int = Field(ge=0)
    sequential: bool
    labels: tuple[LabelProof, ...] = ()
