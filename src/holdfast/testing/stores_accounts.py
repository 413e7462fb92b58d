"""What every store does with what was spent: all or none, nothing lost, and nothing held for ever."""

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.store import Account, Cap, Hold, Settled, Standing, Store
from holdfast.testing.store_words import LONG_S, ODD_TEXTS, SHORT_S, expect, expect_soon, talk

DAY, MONTH = "2026-11-20", "2026-11"
ANNA = Account("user", "anna", DAY)
EVERYBODY = Account("all", "", MONTH)
BIG = 2**40


def hold(name: str, tokens: int = 10, nanos: int = 100, replica: str = "a") -> Hold:
    """What a call of replica ``a`` may use."""
    return Hold(name, "c0ffee-1", replica, tokens, nanos)


async def a_hold_is_on_all_accounts_or_on_none(store: Store) -> None:
    """One that has no room on one of them is held on none, whichever that is."""
    for wide, narrow in ((ANNA, EVERYBODY), (EVERYBODY, ANNA)):
        caps = [Cap(wide, 1_000, 10_000), Cap(narrow, None, 99)]
        expect("a hold without room", await store.reserve(hold("h"), caps), (False, (Standing(wide), Standing(narrow))))
        expect("what is held then", await store.standings([wide, narrow]), [Standing(wide), Standing(narrow)])
    fits, standings = await store.reserve(hold("h"), [Cap(ANNA, 10, None), Cap(EVERYBODY, None, 100)])
    expect("a hold that just fits", fits, wanted=True)
    expect("what is held then", standings, (Standing(ANNA, 0, 0, 10, 100), Standing(EVERYBODY, 0, 0, 10, 100)))


async def what_is_held_counts_until_it_is_settled(store: Store) -> None:
    """Then what was used counts, more than was held too."""
    caps = [Cap(ANNA, 30, None)]
    for name in ("one", "two", "three"):
        expect("a hold with room", (await store.reserve(hold(name), caps))[0], wanted=True)
    expect("one too many", (await store.reserve(hold("four"), caps))[0], wanted=False)
    await store.settle([Settled("one", 3, 30), Settled("two", 15, 150), Settled("unknown", BIG, BIG)])
    expect("two of three settled", await store.standings([ANNA]), [Standing(ANNA, 18, 180, 10, 100)])
    await store.settle([Settled("one", 3, 30)])
    expect("one settled twice", await store.standings([ANNA]), [Standing(ANNA, 18, 180, 10, 100)])
    expect("too much", (await store.reserve(hold("five", tokens=3), caps))[0], wanted=False)
    expect("as much as is left", (await store.reserve(hold("five", tokens=2), caps))[0], wanted=True)
    await store.settle([Settled("three", 0, 0), Settled("five", 2, 1)])
    expect("all settled", await store.standings([ANNA]), [Standing(ANNA, 20, 181)])


async def a_hold_is_made_once(store: Store) -> None:
    """Asked for again, as after a lost connection, it is still one."""
    caps = [Cap(ANNA, 10, None), Cap(EVERYBODY, BIG, BIG)]
    first = await store.reserve(hold("h"), caps)
    expect("the same again", await store.reserve(hold("h"), caps), first)
    await store.settle([Settled("h", 4, 40)])
    expect("settled", await store.standings([ANNA]), [Standing(ANNA, 4, 40)])


async def many_at_once_take_no_more_than_there_is(store: Store) -> None:
    """Each of them asks for its own account and for everybody's."""
    accounts = [Account("user", f"user {n}", DAY) for n in range(4)]

    async def ask(n: int) -> bool:
        caps = [Cap(accounts[n % 4], 100, None), Cap(EVERYBODY, 100, None)]
        order = caps if n % 2 else caps[::-1]
        return (await store.reserve(hold(f"h{n}"), order))[0]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(n)) for n in range(40)]
    expect("holds that fit", sum(task.result() for task in asked), 10)
    expect("what everybody holds", (await store.standings([EVERYBODY]))[0].held_tokens, 100)
    expect("the sum of theirs", sum(one.held_tokens for one in await store.standings(accounts)), 100)
    async with asyncio.TaskGroup() as group:
        for n, task in enumerate(asked):
            if task.result():
                group.create_task(store.settle([Settled(f"h{n}", 1, 2)]))
    expect("what everybody spent", await store.standings([EVERYBODY]), [Standing(EVERYBODY, 10, 20)])


async def what_the_dead_held_counts_as_spent(store: Store) -> None:
    """All of it, once; what the living hold is theirs."""
    caps = [Cap(ANNA, BIG, BIG), Cap(EVERYBODY, BIG, BIG)]
    await store.reserve(hold("lost"), caps)
    await store.reserve(hold("kept", tokens=1, nanos=1, replica="b"), caps)
    expect("nothing before the lease is over", await store.write_off(LONG_S), [])

    async def written_off() -> bool:
        await store.beat("b")
        return await store.write_off(SHORT_S) == [hold("lost")]

    await expect_soon("what the dead held", written_off)
    expect("what counts then", (await store.standings([ANNA]))[0], Standing(ANNA, 10, 100, 1, 1))
    await store.settle([Settled("lost", 1, 1)])
    expect("settled by a dead one", (await store.standings([EVERYBODY]))[0], Standing(EVERYBODY, 10, 100, 1, 1))
    await store.settle([Settled("kept", 1, 1)])
    expect("settled by the living", (await store.standings([ANNA]))[0], Standing(ANNA, 11, 101))


async def a_hold_is_settled_in_the_period_it_was_made_in(store: Store) -> None:
    """Whatever day it is by then; and a day with nothing held is forgotten once it is of no interest."""
    old, new = Account("user", "anna", "2026-10-31"), Account("user", "anna", "2026-11-01")
    await store.reserve(hold("before"), [Cap(old, 10, None)])
    await store.reserve(hold("after"), [Cap(new, 10, None)])
    await store.forget_accounts("2026-11")
    await store.settle([Settled("before", 7, 0), Settled("after", 8, 0)])
    expect("both days", await store.standings([old, new]), [Standing(old, 7), Standing(new, 8)])
    month = Account("user", "anna", "2026-10")
    await store.reserve(hold("month"), [Cap(month, None, None)])
    await store.settle([Settled("month", 1, 0)])
    await store.forget_accounts("2026-10")
    expect("none is forgotten too early", await store.standings([old, month]), [Standing(old, 7), Standing(month, 1)])
    await store.forget_accounts("2026-11")
    expect("old ones are", await store.standings([old, month, new]), [Standing(old), Standing(month), Standing(new, 8)])


async def accounts_are_listed_in_pages(store: Store) -> None:
    """By scope, name and period, of the periods that are asked for."""
    accounts = [Account("agent", "a", DAY), Account("all", "", MONTH), Account("all", "", DAY)]
    accounts += [Account("user", name, DAY) for name in sorted(ODD_TEXTS[1:-1])]
    others = [Account("session", "c0ffee", ""), Account("user", "anna", "2026-11-19")]
    for n, account in enumerate([*accounts, *others]):
        await store.reserve(hold(f"h{n}"), [Cap(account, None, None)])
    found: list[Account] = []
    while page := await store.find_accounts((DAY, MONTH), 2, found[-1] if found else None):
        found += [standing.account for standing in page]
    expect("accounts, two by two", found, accounts)
    expect("how one stands", (await store.find_accounts((MONTH,), 9, None))[0], Standing(accounts[1], 0, 0, 10, 100))


async def a_sessions_account_goes_with_it(store: Store) -> None:
    """And nobody else's."""
    turn = await talk(store)
    session, other = Account("session", turn.conversation_id, ""), Account("session", "another", "")
    for account in (session, other):
        await store.reserve(hold(account.name), [Cap(account, None, None)])
        await store.settle([Settled(account.name, 5, 5)])
    await store.forget_accounts("2026-11")
    expect("a session's account stays", await store.standings([session]), [Standing(session, 5, 5)])
    await store.forget("anna", "talk")
    expect("both, after it", await store.standings([session, other]), [Standing(session), Standing(other, 5, 5)])


ACCOUNT_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    a_hold_is_on_all_accounts_or_on_none,
    what_is_held_counts_until_it_is_settled,
    a_hold_is_made_once,
    many_at_once_take_no_more_than_there_is,
    what_the_dead_held_counts_as_spent,
    a_hold_is_settled_in_the_period_it_was_made_in,
    accounts_are_listed_in_pages,
    a_sessions_account_goes_with_it,
)
