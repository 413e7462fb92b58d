import inspect
import json
from pathlib import Path
from typing import Any

import pydantic_ai
import pytest

from holdfast.clock import Clock
from holdfast.tools import ToolError, ToolsSpec, standard_tools

NAMES = ["calculate", "current_time", "list_directory", "read_file", "string_transform"]


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "a.txt").write_text("hello")
    return {tool.__name__: tool for tool in standard_tools(ToolsSpec(root=tmp_path, max_read_bytes=10), Clock())}


@pytest.mark.sockets
async def test_there_are_five_and_each_answers_with_json(tools: dict[str, Any]) -> None:
    assert list(tools) == NAMES
    answers = [
        await tools["calculate"]("1+1"),
        await tools["current_time"](),
        await tools["list_directory"](),
        await tools["read_file"]("a.txt"),
        await tools["string_transform"]("a", "length"),
    ]
    assert all(json.loads(json.dumps(answer)) == answer for answer in answers)


@pytest.mark.sockets
async def test_they_keep_to_the_spec(tools: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("x" * 11)
    with pytest.raises(ToolError, match="more than 10 bytes"):
        await tools["read_file"]("big.txt")


@pytest.mark.parametrize("name", NAMES)
def test_a_framework_can_describe_each_to_a_model(tools: dict[str, Any], name: str) -> None:
    """Name, description and a description, type and default of every argument, and nothing that is not meant for it."""
    described = pydantic_ai.Tool[None](tools[name], require_parameter_descriptions=True).tool_def
    arguments = inspect.signature(tools[name]).parameters
    assert described.name == name
    assert (described.description or "").split("\n")[0] == (tools[name].__doc__ or "").split("\n")[1].strip()
    assert "Args:" not in (described.description or "")
    assert set(described.parameters_json_schema["properties"]) == set(arguments)
    assert described.parameters_json_schema.get("required", []) == [
        argument.name for argument in arguments.values() if argument.default is inspect.Parameter.empty
    ]


def test_the_operations_are_an_enumeration(tools: dict[str, Any]) -> None:
    schema = pydantic_ai.Tool[None](tools["string_transform"]).tool_def.parameters_json_schema
    assert schema["properties"]["operation"]["enum"] == [
        "uppercase",
        "lowercase",
        "trim",
        "trim_start",
        "trim_end",
        "reverse",
        "length",
    ]
