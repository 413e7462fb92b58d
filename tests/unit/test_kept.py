"""How a Pydantic AI agent's calls are told apart, and what came back is kept."""

import dataclasses
import enum
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    RunCancelled,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from holdfast.adapters.pydantic_ai.kept import TOOL, decode_answer, encode_answer, request_digest
from holdfast.errors import AttemptTimedOut, CircuitOpen, UnitFailed
from holdfast.tools import ToolError


class Model(BaseModel):
    number: int = Field(serialization_alias="Number")
    at: datetime = datetime(2020, 1, 1, tzinfo=UTC)


@dataclasses.dataclass
class Data:
    path: Path
    inner: tuple[int, ...] = (1, 2)


class Colour(enum.Enum):
    RED = "red"


class Opaque:
    def __str__(self) -> str:
        return "opaque"


IMAGE = BinaryContent(b"\x00\xff", media_type="image/png")
RETURNED: list[Any] = [
    "text",
    "",
    "half a pair \ud800",
    7,
    2**80,
    1.5,
    float("nan"),
    True,
    None,
    {"a": [1, None, {"b": "c"}]},
    {1: 2},
    [1, (2, 3)],
    {3},
    b"\x00\xff",
    Model(number=1),
    [Model(number=1)],
    Data(Path("x")),
    Colour.RED,
    datetime(2020, 1, 1, tzinfo=UTC),
    Decimal("1.50"),
    UUID(int=1),
    IMAGE,
    [ImageUrl("https://x/y.png"), "and", {"deep": IMAGE}],
    {"kind": "image-url", "url": "https://x/y.png"},
    {"kind": "binary", "data": "AAE=", "media_type": "image/png"},
    ToolReturn("v"),
    ToolReturn(Model(number=2), content=["see", IMAGE], metadata={"m": 1}, tools=["t"]),
    Opaque(),
    {"a": Opaque()},
    {"kind": "tool-return", "return_value": 3},
    ToolReturn({"kind": "binary", "data": "AAE=", "media_type": "image/png"}, metadata=1),
    ToolReturn([IMAGE]),
]


def shown(result: Any) -> tuple[str, Any, Any, Any]:
    """What the model is shown of a result, and what goes with it."""
    whole = result if isinstance(result, ToolReturn) else ToolReturn(result)
    part = ToolReturnPart("t", whole.return_value, "c")
    files = [(file.media_type, getattr(file, "data", None)) for file in part.files]
    beside = [item if isinstance(item, str) else item.data for item in whole.content or ()]  # type: ignore[union-attr]  # files have data
    return request_digest("", [ModelRequest([part])]).hex(), files, beside, (whole.metadata, whole.tools)


@pytest.mark.parametrize("result", RETURNED, ids=lambda result: f"{type(result).__name__}")
def test_what_a_tool_returned_is_shown_the_same_when_it_is_given_again(result: Any) -> None:
    kept = TOOL.encode(result)
    json.loads(kept)
    again = TOOL.decode(kept)
    assert shown(again) == shown(result)
    assert shown(TOOL.decode(TOOL.encode(again))) == shown(result)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plain_values_are_given_again_as_they_were(value: Any) -> None:
    """Whatever JSON can hold comes back equal, and tells its request from others as before."""
    again = TOOL.decode(TOOL.encode(value))
    if "inf" not in repr(value) and "\\ud" not in repr(value):
        assert again == value
    assert shown(again) == shown(value)


def test_what_somebody_said_a_call_returned_is_its_result() -> None:
    assert TOOL.decode(b'{"paid": true}') == {"paid": True}
    assert TOOL.decode(b'"paid"') == "paid"


def test_a_result_that_cannot_be_looked_at_is_kept_all_the_same() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert TOOL.decode(TOOL.encode(Broken())) == "<Broken>"


def validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": "{x}", "at": {"a": b"\xff"}})
    return caught.value


def test_what_a_tool_told_is_told_again() -> None:
    retried = ToolReturnPart("t", "again {x}", "c", outcome="retried")
    failed = ToolReturnPart("t", "no", "c", outcome="failed")
    for told, expected in (
        (ModelRetry("again"), ModelRetry("again")),
        (ToolRetryError(retried), ModelRetry("again {x}")),
        (ToolFailed("no"), ToolFailed("no")),
        (ToolFailedError(failed), ToolFailed("no")),
        (ToolError("stuck"), ToolError("stuck")),
        (RunCancelled("enough"), RunCancelled("enough")),
        (ApprovalRequired({"a": 1}), ApprovalRequired({"a": 1})),
        (CallDeferred({"a": 1}, kind="question"), CallDeferred({"a": 1}, kind="question")),
        (KeyError("lost"), KeyError("lost")),
        (AttemptTimedOut("slow"), AttemptTimedOut("slow")),
    ):
        again = TOOL.decode_failure(TOOL.encode_failure(told))
        assert (type(again), str(again), vars(again)) == (type(expected), str(expected), vars(expected))
    open_ = TOOL.decode_failure(TOOL.encode_failure(CircuitOpen("left alone", retry_after_s=3)))
    assert (type(open_), str(open_), getattr(open_, "retry_after_s", None)) == (CircuitOpen, "left alone", 3)


def test_a_failed_validation_is_told_again_with_all_that_was_wrong() -> None:
    error = validation_error()
    again = TOOL.decode_failure(TOOL.encode_failure(error))
    assert isinstance(again, ValidationError)
    first, second = (e.errors(include_url=False, include_context=False) for e in (error, again))
    assert [(e["type"], e["loc"], e["msg"]) for e in second] == [(e["type"], e["loc"], e["msg"]) for e in first]
    assert second[0]["input"] == "{x}"


def test_an_exception_that_is_known_nowhere_is_a_failure_of_the_unit() -> None:
    class Local(Exception):
        pass

    again = TOOL.decode_failure(TOOL.encode_failure(Local("gone")))
    assert isinstance(again, UnitFailed)
    assert again.detail.endswith("Local: gone")


def test_an_answer_is_given_again_as_it_was() -> None:
    response = ModelResponse(
        [ThinkingPart("hm", signature="s", provider_name="p"), TextPart("hi"), ToolCallPart("t", '{"a": 1', "c")],
        usage=RequestUsage(input_tokens=3, output_tokens=4, details={"reasoning": 2}),
        model_name="m",
        timestamp=datetime(2020, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
        provider_details={"finish_reason": "stop"},
        provider_response_id="r",
        finish_reason="stop",
        state="suspended",
    )
    kept = encode_answer(response)
    assert kept is not None
    assert decode_answer(kept) == response


def test_an_answer_that_is_no_unicode_is_not_kept() -> None:
    assert encode_answer(ModelResponse([TextPart("\ud800")])) is None


PROMPT = ModelRequest([UserPromptPart("hi")], run_id="1")
ANSWER = ModelResponse([TextPart("hm"), ToolCallPart("t", {}, "c1")])


def returned(content: Any, call_id: str = "c1", outcome: Any = "success") -> ModelRequest:
    return ModelRequest([ToolReturnPart("t", content, call_id, outcome=outcome)])


def test_a_request_is_told_from_others_by_what_is_said_last() -> None:
    requests: list[tuple[str, list[ModelMessage]]] = [
        ("", [PROMPT]),
        ("sub", [PROMPT]),
        ("", [ModelRequest([UserPromptPart("ho")])]),
        ("", [ModelRequest([UserPromptPart(["hi"])])]),
        ("", [ModelRequest([UserPromptPart(["hi", IMAGE])])]),
        ("", [PROMPT, ANSWER, returned(1)]),
        ("", [PROMPT, ANSWER, returned("1")]),
        ("", [PROMPT, ANSWER, returned(1, "c2")]),
        ("", [PROMPT, ANSWER, returned(1, outcome="failed")]),
        ("", [PROMPT, ModelResponse([TextPart("oh"), ToolCallPart("t", {}, "c1")]), returned(1)]),
        ("", [PROMPT, ANSWER]),
    ]
    digests = [request_digest(*request) for request in requests]
    assert sorted(set(digests[:6] + digests[7:])) == sorted(digests[:6] + digests[7:])


def test_times_instructions_and_runs_do_not_tell_requests_apart() -> None:
    later = ModelRequest(
        [SystemPromptPart("it is late"), UserPromptPart("hi", timestamp=datetime(1999, 1, 1, tzinfo=UTC))],
        instructions="today is Monday",
        run_id="2",
        timestamp=datetime(1999, 1, 1, tzinfo=UTC),
    )
    assert request_digest("", [later]) == request_digest("", [PROMPT])
    assert request_digest("a", [PROMPT]).hex() == "350e4099545262a318230288"
