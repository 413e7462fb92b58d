"""A plain async function as an agent: serve it with `holdfast serve examples/echo.py:handler`."""

from holdfast import FunctionTurn


async def handler(turn: FunctionTurn) -> str:
    """Say back what was said, a word at a time, and how often something was said before."""
    for word in turn.message.split():
        turn.say(f"{word} ")
    return f"{turn.message} (after {len(turn.past)} earlier turns)"
