"""``holdfast budgets`` against a running server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2
    import pytest
    from tests.cli.conftest import Holdfast, Start, Until

HEAD = ["scope", "name", "every", "unit", "limit", "spent", "reserved", "left", "resets_at"]


def test_budgets_are_listed_and_nothing_where_nothing_was_spent(
    holdfast: Holdfast, serve: Start, http: httpx2.Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_BUDGET__USER_TOKENS_PER_DAY", "10000")
    monkeypatch.setenv("HOLDFAST_BUDGET__AGENT_USD_PER_MONTH", "2.5")
    url = serve().url
    assert holdfast("budgets", "--url", url) == (0, "No budgets: nothing is limited, or nothing was spent yet.\n", "")
    answers = [
        http.post(f"{url}/chat", json={"message": "What is 17*23?", "user_id": user}).json() for user in ("anna", "ben")
    ]
    spent = [answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] for answer in answers]

    def settled() -> bool:
        budgets = http.get(f"{url}/v1/budgets").json()["budgets"]
        return len(budgets) == 3 and all(budget["reserved"] == 0 for budget in budgets)

    until(settled)
    said = holdfast("budgets", "--url", url)
    assert (said.code, said.err) == (0, "")
    head, *rows = [line.split() for line in said.out.splitlines()]
    assert head == HEAD
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00.000Z", row.pop()) for row in rows)
    assert rows == [
        ["agent", "assistant", "month", "usd", "2.5", "0", "0", "2.5"],
        *(
            ["user", user, "day", "tokens", "10000", str(used), "0", str(10_000 - used)]
            for user, used in zip(("anna", "ben"), spent, strict=True)
        ),
    ]
    listed = json.loads(holdfast("budgets", "--url", url, "--user", "ben", "--json").out)
    assert [budget["name"] for budget in listed["budgets"]] == ["ben"]
    refused = holdfast("budgets", "--url", url, "--user", "ben", "--session", "none")
    assert (refused.code, refused.out) == (2, "")
    assert "there is no session none" in refused.err
