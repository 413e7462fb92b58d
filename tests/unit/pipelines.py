"""What tests of pipelines are made of."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.clock import NS
from holdfast.resilience import Call, FailureClass, Pipeline, State
from holdfast.resilience.order import Policy
from holdfast.testing import loop_clock

AGAIN = Call(target="claude", repeatable=True)


class Failed(Exception):
    """A failure that says what it is."""

    def __init__(self, failure_class: FailureClass, retry_after_s: float | None = None) -> None:
        super().__init__(failure_class.value)
        self.failure_class = failure_class
        self.retry_after_s = retry_after_s


SERVER = FailureClass.SERVER


class Target:
    """Does what it was told to, one thing for each call, and the last of them from then on."""

    def __init__(self, *does: BaseException | FailureClass | float | str) -> None:
        self.does = list(does)
        self.at: list[float] = []

    async def __call__(self) -> str:
        self.at.append(now())
        doing = self.does.pop(0) if len(self.does) > 1 else self.does[0]
        if isinstance(doing, FailureClass):
            raise Failed(doing)
        if isinstance(doing, BaseException):
            raise doing
        if isinstance(doing, str):
            return doing
        await asyncio.sleep(doing)
        return "answer"


def now() -> float:
    return asyncio.get_running_loop().time()


def made(*policies: Policy, **options: Any) -> Pipeline:
    return Pipeline("tools", *policies, clock=loop_clock(), **options)


async def failure_of(awaitable: Awaitable[Any]) -> Exception:
    try:
        answer = await awaitable
    except Exception as error:  # noqa: BLE001 - whichever it is, the test looks at it
        return error
    raise AssertionError(f"it answered {answer!r}")


async def outcomes(pipeline: Pipeline, count: int, fn: Callable[[], Awaitable[Any]], call: Call = AGAIN) -> list[Any]:
    """Make calls at once; what each returned or raised."""

    async def one() -> Any:
        try:
            return await pipeline.on(call)(fn)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
    return [task.result() for task in tasks]


def idle(pipeline: Pipeline) -> bool:
    """Whether no guard holds anything for anybody."""
    inside = sum(circuit.inflight for circuit, _ in pipeline.breaker.circuits()) if pipeline.breaker else 0
    stats = [view.stats for view in pipeline.bulkhead.views()] if pipeline.bulkhead else []
    return not inside and not any(one.in_use or one.queued for one in stats)


def free(pipeline: Pipeline) -> list[int]:
    """Units that are left of each bucket, in the order of the limits and keys."""
    assert pipeline.rate is not None
    return [bucket.free(round(now() * NS)) for kept in pipeline.rate._kept for _, bucket in kept.table.entries()]


def state_of(pipeline: Pipeline) -> State:
    assert pipeline.breaker is not None
    [(circuit, _)] = pipeline.breaker.circuits()
    return circuit.state(round(now() * NS))
