import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from holdfast.agents.demo import Call, Line, Say, decide
from holdfast.clock import Clock
from holdfast.tools import ToolsSpec, standard_tools

TOOLS = ["calculate", "current_time", "list_directory", "read_file", "string_transform"]
INTRODUCTION = "(I am the offline demo model: rules, not AI.)"


def calls(text: str, tools: Sequence[str] = TOOLS) -> list[tuple[str, Any]]:
    """What the text makes the model call: tool and its one telling argument, or all of them."""
    decision = decide([Line("user", text)], tools)
    found = decision if isinstance(decision, list) else []
    return [(c.tool, next(iter(c.args.values())) if len(c.args) == 1 else c.args) for c in found]


def said(lines: Sequence[Line], tools: Sequence[str] = TOOLS) -> str:
    decision = decide(lines, tools)
    assert isinstance(decision, Say)
    return decision.text


def told(tool: str, result: object) -> str:
    """How a result is told, in a conversation that is under way."""
    text = result if isinstance(result, str) else json.dumps(result)
    asked = [Line("user", "hello"), Line("assistant", "hello"), Line("user", "ls"), Line("tool", text, tool)]
    return said(asked)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("What is 17*23?", "17*23"),
        ("2^10", "2^10"),
        ("Please work out (3+4)/2.", "(3+4)/2"),
        ("17 times 23", "17*23"),
        ("3 x 4", "3*4"),
        ("3x4", "3*4"),
        ("6 \u00d7 7 \u2212 1", "6*7-1"),
        ("12 plus 30", "12+30"),
        ("100 divided by 7 minus 2", "100/7-2"),
        ("2 to the power of 8", "2**8"),
        ("five is not, but 5 squared is", "5**2"),
        ("sqrt(2)", "sqrt(2)"),
        ("the square root of 16 plus 1", "sqrt(16)+1"),
        ("max(1,200)", "max(1,200)"),
        ("15% of 80", "15/100*80"),
        ("1,500*3", "1500*3"),
        ("-5 + 3", "-5+3"),
        ("2*pi", "2*pi"),
        ("1+1=?", "1+1"),
        ("2*3 (roughly)", "2*3"),
        ("(see below) 2*3", "2*3"),
        ("9**9**9", "9**9**9"),
    ],
)
def test_arithmetic_is_found_anywhere(text: str, expression: str) -> None:
    assert calls(text) == [("calculate", expression)]


@pytest.mark.parametrize(
    "text",
    [
        "the number 12",
        "-5",
        "on 2024-10-31",
        "10.0.0.1/24",
        "version 3.11.2",
        "50% off",
        "0x1F",
        "1+",
        "1, 2, 3",
        "the 3rd",
    ],
)
def test_a_number_alone_is_no_request(text: str) -> None:
    assert calls(text) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Which files are here?", "."),
        ("list files", "."),
        ("List all the files in src/holdfast, please.", "src/holdfast"),
        ("what is in this folder", "."),
        ("What's in the docs folder?", "docs"),
        ("what is in the directory src?", "src"),
        ("which files are in the folder 'my docs'?", "my docs"),
        ("show me the folder docs", "docs"),
        ("ls", "."),
        ("ls -la src", "src"),
    ],
)
def test_a_folder_is_listed_when_asked(text: str, path: str) -> None:
    assert calls(text) == [("list_directory", path)]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("read README.md", ["README.md"]),
        ("Show me the file Makefile.", ["Makefile"]),
        ("open ./docs/a-b.txt please", ["./docs/a-b.txt"]),
        ("open /etc/passwd", ["/etc/passwd"]),
        ("what is in pyproject.toml?", ["pyproject.toml"]),
        ("what does LICENSE say?", ["LICENSE"]),
        ("read a.txt, b.txt and 'my c.txt'", ["a.txt", "b.txt", "my c.txt"]),
    ],
)
def test_files_are_read_when_asked(text: str, paths: list[str]) -> None:
    assert calls(text) == [("read_file", path) for path in paths]


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        ("What time is it?", ["UTC"]),
        ("what's the date today", ["UTC"]),
        ("time in Europe/Rome", ["Europe/Rome"]),
        ("what time is it in rome and New York?", ["Europe/Rome", "America/New_York"]),
        ("What is the time in Gotham?", ["Gotham"]),
    ],
)
def test_the_time_is_told_where_asked(text: str, zones: list[str]) -> None:
    assert calls(text) == [("current_time", zone) for zone in zones]


@pytest.mark.parametrize(
    ("text", "operation", "given_text"),
    [
        ("uppercase 'hello'", "uppercase", "hello"),
        ('Make "Hello" lower case', "lowercase", "Hello"),
        ("reverse “1+1”", "reverse", "1+1"),
        ("trim '  hi '", "trim", "  hi "),
        ("trim the start of ' x'", "trim_start", " x"),
        ("what is the length of 'don't'?", "length", "don't"),
        ("please uppercase the word hello", "uppercase", "hello"),
    ],
)
def test_a_text_is_changed_when_asked(text: str, operation: str, given_text: str) -> None:
    assert calls(text) == [("string_transform", {"text": given_text, "operation": operation})]


def test_everything_a_message_asks_for_is_called_at_once_in_its_order() -> None:
    text = "What is 17*23, and which files are here? Then read a.txt, tell me the time in Tokyo, and 17*23 once more"
    assert calls(text) == [
        ("calculate", "17*23"),
        ("list_directory", "."),
        ("read_file", "a.txt"),
        ("current_time", "Asia/Tokyo"),
    ]


def test_one_message_gets_a_bounded_number_of_calls() -> None:
    assert len(calls(" and ".join(f"{n}*2" for n in range(100)))) == 8


def test_tools_run_once_for_a_message_and_again_for_the_next() -> None:
    result = Line("tool", '{"expression": "1+1", "result": 2}', "calculate")
    lines = [Line("user", "1+1"), Line("assistant", ""), result]
    assert said(lines) == f"{INTRODUCTION}\n1+1 = 2"
    assert decide([*lines, Line("assistant", "2"), Line("user", "2+2")], TOOLS) == [
        Call("calculate", {"expression": "2+2"})
    ]


@pytest.mark.parametrize(
    ("tool", "result", "sentence"),
    [
        ("calculate", {"expression": "17*23", "result": 391}, "17*23 = 391"),
        ("calculate", {"expression": "sqrt(16)", "result": 4.0}, "sqrt(16) = 4"),
        ("calculate", {"expression": "10/4", "result": 2.5}, "10/4 = 2.5"),
        (
            "list_directory",
            {
                "path": ".",
                "entries": [{"name": "a.txt", "type": "file"}, {"name": "b", "type": "directory"}],
                "left_out": 2,
            },
            "This folder has: a.txt, b/ and 2 more.",
        ),
        ("list_directory", {"path": "src", "entries": [], "left_out": 0}, "The folder src is empty."),
        ("read_file", {"path": "a.txt", "size": 2, "text": "hi"}, "a.txt (2 bytes):\nhi"),
        ("read_file", {"path": "a.txt", "size": 0, "text": ""}, "a.txt is empty."),
        (
            "current_time",
            {"timezone": "UTC", "rfc3339": "2026-01-31T12:00:00+00:00", "weekday": "Saturday"},
            "It is 2026-01-31T12:00:00+00:00 in UTC, a Saturday.",
        ),
        ("string_transform", {"operation": "length", "result": 3}, "length: 3"),
        ("calculate", "error: That divides by zero.", "`calculate` failed: That divides by zero."),
        ("calculate", {"error": "That divides by zero."}, "`calculate` failed: That divides by zero."),
        ("weather", "cloudy", "`weather` said: cloudy"),
        ("weather", {"sky": ["grey"]}, '`weather` said: {"sky": ["grey"]}'),
        ("weather", "[" * 100_000, f"`weather` said: {'[' * 600}… (99400 characters more)"),
        ("calculate", "9" * 5_000, f"`calculate` said: {'9' * 600}… (4400 characters more)"),
    ],
)
def test_a_result_is_told_as_what_it_is(tool: str, result: object, sentence: str) -> None:
    assert told(tool, result) == sentence


def test_long_results_are_shortened_and_say_so() -> None:
    assert told("read_file", {"path": "a", "size": 700, "text": "x" * 700}).endswith("x… (100 characters more)")
    many = [{"name": f"{n:02}", "type": "file"} for n in range(25)]
    assert told("list_directory", {"path": ".", "entries": many, "left_out": 5}).endswith("18, 19 and 10 more.")


def test_without_the_tool_it_says_that_it_cannot() -> None:
    assert "there is no tool `calculate`" in said([Line("user", "1+1")], [])
    assert calls("1+1 and list files", ["list_directory"]) == [("list_directory", ".")]
    listed = Line("tool", '{"path": ".", "entries": [], "left_out": 0}', "list_directory")
    answer = said([Line("user", "1+1 and list files"), listed], ["list_directory"])
    assert "This folder is empty." in answer
    assert "there is no tool `calculate`" in answer


def test_it_introduces_itself_in_its_first_answer_only() -> None:
    first = said([Line("user", "my name is Ada")])
    assert first == f"{INTRODUCTION}\nI will remember that your name is Ada."
    assert "demo" not in said([Line("user", "hi"), Line("assistant", first), Line("user", "my cat is Tom")])


def test_it_remembers_what_was_said() -> None:
    lines = [Line("user", "My name is Ada and I like tea."), Line("assistant", "ok"), Line("user", "my cat is Tom")]
    lines += [Line("assistant", "ok")]

    def ask(text: str) -> str:
        return said([*lines, Line("user", text)])

    assert ask("what is my name?") == "Your name is Ada."
    assert ask("Who am I?") == "Your name is Ada."
    assert ask("What's my cat and what is my dog?") == (
        "Your cat is Tom.\nYou have not told me your dog in this session."
    )
    assert ask("what did I say before?") == ("Before this you said:\n- My name is Ada and I like tea.\n- my cat is Tom")
    assert "not said anything" in said([Line("user", "What did I ask before?")])


@pytest.mark.parametrize("lines", [[], [Line("assistant", "hi")], [Line("user", "")], [Line("user", "sing me a song")]])
def test_what_it_has_no_rule_for_it_says_honestly(lines: list[Line]) -> None:
    answer = said(lines, ["calculate"])
    assert answer.startswith("I am an offline rule-based demo model")
    assert "17*23" in answer
    assert "list files" not in answer
    assert all(setting in answer for setting in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "llm.base_url"))


def test_only_the_beginning_of_a_long_message_is_looked_at() -> None:
    assert calls("1+1 " + "x" * 1_000_000 + " 2+2") == [("calculate", "1+1")]


hostile = st.sampled_from(
    ["(", "1+(", " 'a", "9", "a.", "my a ", "trim ", "read a/", "1,", "1,000", " ", "what is in this ", "time in ", '"']
)


@given(st.lists(hostile | st.text(max_size=5), max_size=6).map("".join), st.integers(1, 4_000))
@settings(max_examples=100, deadline=None)
def test_whatever_is_said_it_comes_to_a_decision_and_always_to_the_same(piece: str, times: int) -> None:
    lines = [Line("user", (piece * times)[:10_000])]
    assert decide(lines, TOOLS) == decide(lines, TOOLS)


def lines_of(messages: list[ModelMessage]) -> list[Line]:
    lines = []
    for message in messages:
        for part in message.parts:
            if isinstance(message, ModelRequest) and isinstance(part, UserPromptPart):
                lines.append(Line("user", str(part.content)))
            elif isinstance(part, ToolReturnPart):
                lines.append(Line("tool", part.model_response_str(), part.tool_name))
            elif isinstance(part, TextPart):
                lines.append(Line("assistant", part.content))
    return lines


def demo_model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    decision = decide(lines_of(messages), [tool.name for tool in info.function_tools])
    if isinstance(decision, Say):
        return ModelResponse(parts=[TextPart(decision.text)])
    return ModelResponse(parts=[ToolCallPart(call.tool, call.args) for call in decision])


@pytest.mark.sockets
async def test_a_real_agent_calls_real_tools_with_it(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    agent = Agent(FunctionModel(demo_model), tools=standard_tools(ToolsSpec(root=tmp_path), Clock()))
    done = await agent.run("What is 17*23, and which files are here?")
    called = [part.tool_name for m in done.all_messages() for part in m.parts if isinstance(part, ToolCallPart)]
    assert called == ["calculate", "list_directory"]
    assert done.output == f"{INTRODUCTION}\n17*23 = 391\nThis folder has: notes.md."
