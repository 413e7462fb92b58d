"""From ``module:object`` to an agent that can be served, or a sentence that says why not."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from pydantic_ai.agent import AbstractAgent

from holdfast.adapters.function import AskModel, FunctionAgent
from holdfast.adapters.pydantic_ai import PydanticAgent
from holdfast.errors import Misconfigured
from holdfast.turn import Agent

WANTED = "Holdfast serves a pydantic_ai.Agent or an `async def handler(turn)`"


def load_agent(target: str, ask_model: AskModel) -> Agent:
    """
    The agent that ``module:object`` or ``path.py:object`` names.

    Raises:
        Misconfigured: there is no such module or object, importing it raised, or it is nothing that can be served.
    """
    where, colon, name = target.rpartition(":")
    if not (colon and where and name):
        raise Misconfigured(f"{target}: name an agent as module:object or path.py:object")
    module = _import(where, target)
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            served = [key for key, value in vars(module).items() if _can_be_served(value) and not key.startswith("_")]
            hint = f"; it has {', '.join(served)}" if served else ""
            raise Misconfigured(f"{target}: {where} has no {name}{hint}")
        found = getattr(found, part)
    return adapt(found, name.rpartition(".")[2], ask_model, target)


def adapt(found: object, name: str, ask_model: AskModel, where: str = "") -> Agent:
    """
    ``found`` as an agent. One that has a name of its own keeps it.

    Raises:
        Misconfigured: it is neither an agent nor an async function of one argument.
    """
    where = where or name
    if isinstance(found, AbstractAgent):
        return PydanticAgent(found, found.name or name)
    if isinstance(found, type):
        raise Misconfigured(f"{where} is the class {found.__name__}; {WANTED}: make an instance")
    if not callable(found):
        raise Misconfigured(f"{where} is a {type(found).__name__}; {WANTED}")
    if not inspect.iscoroutinefunction(found) and not inspect.iscoroutinefunction(type(found).__call__):
        raise Misconfigured(f"{where} is not async; {WANTED}: define it with `async def`")
    try:
        inspect.signature(found).bind(object())
    except TypeError:
        raise Misconfigured(f"{where} must take one argument, the turn; {WANTED}") from None
    return FunctionAgent(found, name, ask_model)


def _can_be_served(found: object) -> bool:
    return isinstance(found, AbstractAgent) or inspect.iscoroutinefunction(found)


def _import(where: str, target: str) -> ModuleType:
    path = Path(where)
    try:
        if path.suffix != ".py":
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(where)
        if not path.is_file():
            raise Misconfigured(f"{target}: there is no file {where}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise Misconfigured(f"{target}: {where} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except Misconfigured:
        raise
    except ModuleNotFoundError as error:
        raise Misconfigured(f"{target}: there is no module {error.name}") from error
    except Exception as error:
        raise Misconfigured(f"{target}: importing {where} raised {type(error).__name__}: {error}") from error
    return module
