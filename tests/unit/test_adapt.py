"""What can be served, and what is said of what cannot."""

from pathlib import Path

import pytest
from pydantic_ai import Agent

from holdfast.adapters import FunctionAgent, FunctionTurn, PydanticAgent, adapt, load_agent
from holdfast.errors import Misconfigured
from holdfast.turn import Turn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def no_model(_turn: Turn, _prompt: str, _instructions: str | None) -> str:
    raise AssertionError


async def handler(turn: FunctionTurn) -> str:
    return turn.message


class Handler:
    async def __call__(self, turn: FunctionTurn) -> str:
        return turn.message


def test_an_agent_an_async_function_and_an_async_callable_can_be_served() -> None:
    assert isinstance(adapt(Agent("test"), "a", no_model), PydanticAgent)
    assert isinstance(adapt(handler, "a", no_model), FunctionAgent)
    assert isinstance(adapt(Handler(), "a", no_model), FunctionAgent)


def test_an_agent_keeps_its_own_name_and_takes_its_variables_otherwise() -> None:
    assert adapt(Agent("test", name="mine"), "variable", no_model).name == "mine"
    assert adapt(Agent("test"), "variable", no_model).name == "variable"


def not_async(turn: FunctionTurn) -> str:
    return turn.message


async def no_arguments() -> str:
    return ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (7, "x.py:it is a int; Holdfast serves a pydantic_ai.Agent or an `async def"),
        (Agent, "x.py:it is the class Agent; .*make an instance"),
        (not_async, "x.py:it is not async; .*define it with `async def`"),
        (no_arguments, "x.py:it must take one argument, the turn"),
    ],
)
def test_what_cannot_be_served_is_explained(found: object, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        adapt(found, "it", no_model, "x.py:it")


def test_the_examples_can_be_served_from_their_files() -> None:
    assert isinstance(load_agent(f"{EXAMPLES / 'weather.py'}:agent", no_model), PydanticAgent)
    assert isinstance(load_agent(f"{EXAMPLES / 'echo.py'}:handler", no_model), FunctionAgent)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nothing", "name an agent as module:object or path.py:object"),
        ("nowhere.py:agent", "there is no file nowhere.py"),
        ("no_such_module_anywhere:agent", "there is no module no_such_module_anywhere"),
        (f"{EXAMPLES / 'weather.py'}:agnet", "has no agnet; it has agent, wind_chill"),
    ],
)
def test_a_target_that_is_not_there_is_explained(target: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        load_agent(target, no_model)


def test_a_module_that_raises_is_named_with_what_it_raised(tmp_path: Path) -> None:
    broken = tmp_path / "broken_agent.py"
    broken.write_text("raise ValueError('no model today')")
    with pytest.raises(Misconfigured, match=r"importing .*broken_agent.py raised ValueError: no model today"):
        load_agent(f"{broken}:agent", no_model)
