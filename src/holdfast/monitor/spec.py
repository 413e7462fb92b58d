"""When an agent's behaviour counts as critical, and how far the monitor goes about it."""

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

Profile = Literal["conservative", "default", "aggressive"]

PROFILES: Final[dict[Profile, dict[str, float]]] = {
    "conservative": {
        "rep": 5,
        "near": 5,
        "pair_warn": 5,
        "pair_stop": 6,
        "any_warn": 6,
        "any_stop": 8,
        "err_warn": 4,
        "err_stop": 8,
        "cls_warn": 5,
        "cls_stop": 8,
        "stale_warn": 4,
        "stale_stop": 5,
        "panic_confidence": 0.3,
        "hubris_confidence": 0.95,
        "failed_in_a_row": 5,
        "failed_in_all": 10,
    },
    "default": {},
    "aggressive": {
        "rep": 2,
        "near": 2,
        "pair_warn": 2,
        "pair_stop": 3,
        "any_warn": 3,
        "any_stop": 4,
        "err_warn": 2,
        "err_stop": 4,
        "cls_warn": 2,
        "cls_stop": 4,
        "stale_warn": 2,
        "stale_stop": 3,
        "panic_confidence": 0.5,
        "hubris_confidence": 0.85,
        "failed_in_a_row": 2,
    },
}
"""What a profile sets in place of the defaults, where a key is not set by itself."""


class ToolRule(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What the monitor is to know of one tool."""

    repeatable: Literal["none", "poll", "page"] = "none"
    """`poll` is called again and again until something has happened, and is no loop for `poll_for_s`; `page` is called
    with other numbers to read on, and is no loop while what it answers differs."""

    idempotent: bool | None = None
    """Whether making a call twice does no more than making it once. A tool that says false is stopped at the second
    same call, before it runs. None: nobody said."""

    trusted: bool = False
    """Whether a confused agent may still use it: it only reads, and from a source that is believed."""

    finish: bool = False
    """Whether it may still be used when only finishing is allowed, as one that saves or submits."""

    check: bool = False
    """Whether a call of it, once it succeeded, counts as a check of what was written before."""

    irreversible: bool = False
    """Whether what it does cannot be undone: an agent that lacks evidence then needs a person's approval."""

    poll_every_s: float = Field(1.0, ge=0, le=3_600)
    """Seconds between two same calls of a `poll` tool, at least; 0 never waits."""

    poll_for_s: float = Field(600.0, gt=0, le=86_400)
    """Seconds a `poll` tool may be called in the same way before that counts as a loop."""


class Thresholds(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """
    When behaviour is critical, and what is done about it.

    A key that ends in ``_warn`` is the point where the agent is told, one in ``_stop`` where it is held back at once.
    """

    mode: Literal["off", "auto", "shadow", "act"] = "auto"
    """`shadow` tells what it sees and changes nothing; `act` intervenes; `auto` is in shadow until an agent has had
    `successes`, and acts from then on; `off` does not look."""

    asks: bool = False
    """Whether the one who asked may be asked back: the turn then ends with a question, where the agent would otherwise
    be told to plan anew or to answer with what it knows."""

    profile: Profile = "default"
    """`conservative` waits for more signs and `aggressive` for fewer; a key that is set by itself wins over it."""

    rep: int = Field(3, ge=2, le=100)
    """Times the same call is made, or the same message written, while nothing new comes back; and steps in a row all of
    whose calls were blocked."""

    near: int = Field(3, ge=2, le=100)
    """Times in a row that a call is made with the same result, but for numbers in either of them."""

    cycles: int = Field(2, ge=2, le=20)
    """Times in a row that a block of two to four calls, with their results, is made."""

    pair_warn: int = Field(3, ge=2, le=100)
    """Times the same call has the same result within `window`."""

    pair_stop: int = Field(4, ge=2, le=100)
    """Times the same call has the same result within `window`."""

    any_warn: int = Field(4, ge=2, le=100)
    """Times in a row that the same call is made, whatever comes back."""

    any_stop: int = Field(5, ge=2, le=100)
    """Times in a row that the same call is made, whatever comes back."""

    window: int = Field(20, ge=4, le=200)
    """Steps that are looked back on for calls that come again with the same result."""

    err_warn: int = Field(3, ge=2, le=100)
    """Errors in a row."""

    err_stop: int = Field(6, ge=2, le=100)
    """Errors in a row."""

    cls_warn: int = Field(3, ge=2, le=100)
    """Errors of one tool and one class within `cls_window`, though the calls may differ."""

    cls_stop: int = Field(6, ge=2, le=100)
    """Errors of one tool and one class within `cls_window`, though the calls may differ."""

    cls_window: int = Field(8, ge=2, le=200)
    """Steps that are looked back on for errors of one class."""

    stale_warn: int = Field(3, ge=2, le=100)
    """Results in a row that say something, all of which this run has seen before."""

    stale_stop: int = Field(3, ge=2, le=100)
    """Results in a row that say something, all of which this run has seen before."""

    tell_ratio: float = Field(0.70, gt=0, le=1)
    """Share of the budget (steps, tokens, money or time) from which the agent is told what is left."""

    finish_ratio: float = Field(0.85, gt=0, le=1)
    """Share of the budget from which only tools that finish may be used."""

    final_ratio: float = Field(0.95, gt=0, le=1)
    """Share of the budget from which the next message has to be the answer."""

    agreement: float = Field(0.5, ge=0, le=1)
    """Share of samples or voters below which they disagree."""

    panic_confidence: float = Field(0.4, ge=0, le=1)
    """Stated confidence below which an agent is unsure; it counts only together with `panic_drop` and `panic_steps`."""

    panic_drop: float = Field(0.2, ge=0, le=1)
    """How far stated confidence has to be below what is usual for the agent."""

    panic_steps: int = Field(2, ge=1, le=100)
    """Steps in a row that the agent has to be unsure, and learn nothing new."""

    claim_confidence: float = Field(0.5, ge=0, le=1)
    """Confidence from which a statement is held, so that one against it is a contradiction."""

    hubris_confidence: float = Field(0.9, ge=0, le=1)
    """Stated confidence of an answer from which it needs at least one piece of evidence."""

    min_evidence: int = Field(0, ge=0, le=1_000)
    """Different calls that have to succeed before an answer, where that is known for an agent's tasks; 0 asks for none
    but what its own successes show."""

    drift: bool = False
    """Whether an agent that leaves its goal is noticed, by words alone: this is a guess."""

    drift_steps: int = Field(6, ge=2, le=100)
    """Steps in a row without a word of the goal."""

    wait_steps: int = Field(2, ge=1, le=20)
    """Steps an agent has to react before the next intervention; a budget that runs out does not wait."""

    close_steps: int = Field(3, ge=1, le=20)
    """Steps in a row that bring something new, and are no errors, after which a critical state is over."""

    hide_steps: int = Field(3, ge=1, le=100)
    """Steps a tool stays hidden."""

    reopen_steps: int = Field(5, ge=1, le=100)
    """Steps within which the same state shows that an intervention has failed."""

    failed_in_a_row: int = Field(3, ge=1, le=100)
    """Interventions that fail in a row before the run is stopped."""

    failed_in_all: int = Field(6, ge=1, le=1_000)
    """Interventions that fail in all before the run is stopped."""

    successes: int = Field(30, ge=1, le=10_000)
    """Successful runs of an agent from which its norms count: usual length, usual evidence, and `auto` acts."""


if TYPE_CHECKING:

    class AgentRule(BaseModel):
        """The keys of ``Thresholds`` for one agent; None takes those of all."""

else:
    AgentRule = create_model(
        "AgentRule",
        __config__=ConfigDict(frozen=True, extra="forbid"),
        __doc__="Keys that differ for one agent; None takes what holds for all.",
        **{
            name: (
                Annotated[field.annotation, *field.metadata] | None if field.metadata else field.annotation | None,
                Field(None, description=f"{field.description} None takes `{name}`."),
            )
            for name, field in Thresholds.model_fields.items()
        },
    )


class MonitorSpec(Thresholds, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """
    When behaviour is critical, and what is done about it. Section ``monitor``.

    A key that ends in ``_warn`` is the point where the agent is told, one in ``_stop`` where it is held back at once.
    """

    tools: dict[str, ToolRule] = {}
    """What is to be known of tools, by their names."""

    agents: dict[str, AgentRule] = {}
    """Agents with keys of their own, by their names."""

    @model_validator(mode="before")
    @classmethod
    def _take_profile(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(profile := given.get("profile"), str):
            return {**PROFILES.get(profile, {}), **given}  # type: ignore[call-overload]  # an unknown name is told below
        return given

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("pair", "any", "err", "cls", "stale"):
            warn, stop = getattr(self, f"{name}_warn"), getattr(self, f"{name}_stop")
            if warn > stop:
                raise ValueError(f"{name}_warn must be <= {name}_stop, got {warn} > {stop}")
        if not self.tell_ratio <= self.finish_ratio <= self.final_ratio:
            raise ValueError("tell_ratio, finish_ratio and final_ratio must be in order")
        if self.cls_stop > self.cls_window:
            raise ValueError(f"cls_stop must be <= cls_window, got {self.cls_stop} > {self.cls_window}")
        for agent in self.agents:
            try:
                self.for_agent(agent)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, ("agents", agent, *first["loc"])))
                raise ValueError(f"{where}: {first['msg']}") from error
        return self

    def for_agent(self, agent: str) -> "MonitorSpec":
        """The thresholds of one agent: its own where it has any, and these."""
        rule = self.agents.get(agent)
        own = {} if rule is None else rule.model_dump(exclude_none=True)
        if not own:
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set - {"agents"}}
        if "profile" in own:  # what this spec's profile filled in gives way to that of the agent's
            given = {name: value for name, value in given.items() if name not in PROFILES[self.profile]}
        return MonitorSpec.model_validate({**given, **own})
