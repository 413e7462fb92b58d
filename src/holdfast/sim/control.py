"""
The control plane: what tests and chaos experiments ask the simulator, and tell it, while it runs.

    GET    /sim/health      counters
    GET    /sim/requests    what arrived, and the counters        DELETE  forget it
    GET    /sim/script      the rules in force                    PUT     replace them
    GET    /sim/faults      the injected faults                   POST    inject one     DELETE  take all out
"""

from typing import Any

import msgspec

from holdfast.errors import Misconfigured
from holdfast.sim.director import Director
from holdfast.sim.loading import read_rule, read_script
from holdfast.sim.record import Trail
from holdfast.sim.rules import Rule, Script

PREFIX = "/sim/"


class Control:
    """Answers the control plane's routes."""

    def __init__(self, director: Director, trail: Trail) -> None:
        self._director = director
        self._trail = trail

    def answer(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        """Status and JSON body of one request; 404 where there is no such route."""
        try:
            return self._routed(method, path.removeprefix(PREFIX), body or b"")
        except Misconfigured as wrong:
            return 400, {"error": wrong.detail}

    def _routed(self, method: str, noun: str, body: bytes) -> tuple[int, dict[str, Any]]:
        match method, noun:
            case "GET", "health":
                return 200, {"status": "ok", **self._counters()}
            case "GET", "requests":
                return 200, {**self._counters(), "requests": [record.as_data() for record in self._trail.records]}
            case "DELETE", "requests":
                return 200, {"deleted": self._trail.clear()}
            case "GET", "script":
                return 200, self._script()
            case "PUT", "script":
                self._director.use(read_script(_json(body), "PUT /sim/script"))
                return 200, self._script()
            case "GET", "faults":
                return 200, {"faults": self._faults()}
            case "POST", "faults":
                return 201, {"name": self._director.add_fault(fault_rule(_json(body), "POST /sim/faults"))}
            case "DELETE", "faults":
                return 200, {"deleted": self._director.clear_faults()}
        return 404, {"error": f"there is no {method} {PREFIX}{noun}"}

    def _counters(self) -> dict[str, Any]:
        trail = self._trail
        return {"in_flight": trail.in_flight, "max_in_flight": trail.max_in_flight, "total": trail.total}

    def _script(self) -> dict[str, Any]:
        script = self._director.script
        return script.as_data() if isinstance(script, Script) else {"python": self._director.name}

    def _faults(self) -> list[dict[str, Any]]:
        tallies = self._director.faults()
        return [
            {"name": tally.name, "used": tally.used, "rule": msgspec.to_builtins(tally.rule, enc_hook=str)}
            for tally in tallies
        ]


def fault_rule(data: object, where: str) -> Rule:
    """
    An injected fault from JSON data: a rule with ``fault`` and, at will, ``when``, ``times``, ``after``, ``share``.

    Raises:
        Misconfigured: it is no such rule; nothing was changed.
    """
    rule = read_rule(data, where)
    if rule.fault is None or rule.say or rule.call or rule.finish or rule.usage:
        raise Misconfigured(f"{where}: an injected fault has the key fault, and no say, call, finish or usage")
    return rule


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as wrong:
        raise Misconfigured(f"the body is not JSON: {wrong}") from wrong
