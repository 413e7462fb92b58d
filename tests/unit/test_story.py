"""The events of a turn: numbered, shown, and kept."""

import json

from holdfast.events import TextDelta
from holdfast.journal import Numbered, Story, encode, read_said, unbroken
from holdfast.journal.story import PER_OWNER
from holdfast.store import Said


def texts(story: Story, after: int = 0) -> list[tuple[int, str]]:
    return [(number, event.text) for number, event in story.since(after) if isinstance(event, TextDelta)]


def told(*words: str, generation: int = 1) -> Story:
    story = Story(generation)
    for word in words:
        story.take(TextDelta(text=word))
    return story


def read(said: Said | None, after: int = 0) -> list[tuple[int, str]]:
    assert said is not None
    return [(one.number, json.loads(one.data)["text"]) for one in read_said([said], after)]


def test_events_are_numbered_from_one_and_from_the_next_million_by_the_next_owner() -> None:
    assert texts(told("a", "b")) == [(1, "a"), (2, "b")]
    assert texts(told("a", "b", generation=3)) == [(2 * PER_OWNER + 1, "a"), (2 * PER_OWNER + 2, "b")]


def test_whoever_comes_back_is_shown_what_they_have_not_seen() -> None:
    story = told("a", "b", "c", generation=2)
    first = PER_OWNER + 1
    assert texts(story, first) == [(first + 1, "b"), (first + 2, "c")]
    assert texts(story, 7) == texts(story, 0) == texts(story)
    assert texts(story, first + 2) == []


def test_each_event_is_handed_to_the_store_once() -> None:
    story = told("a", "b")
    first = story.unkept()
    assert read(first) == [(1, "a"), (2, "b")]
    assert first is not None
    assert first.last == 2
    assert story.unkept() is None
    story.take(TextDelta(text="c"))
    assert read(story.unkept()) == [(3, "c")]


def test_what_the_store_lost_is_handed_over_again() -> None:
    story = told("a")
    lost = story.unkept()
    story.take(TextDelta(text="b"))
    also = story.unkept()
    story.lost(lost)
    story.lost(also)
    story.lost(None)
    assert read(story.unkept()) == [(1, "a"), (2, "b")]


def test_last_words_follow_and_are_shown_to_nobody() -> None:
    story = told("a")
    assert read(story.unkept(TextDelta(text="end"))) == [(1, "a"), (2, "end")]
    assert texts(story) == [(1, "a")]


def test_what_was_kept_is_read_once_and_from_where_it_is_asked_for() -> None:
    story = told("a", "b", "c")
    whole = story.unkept()
    assert whole is not None
    assert read(whole, 2) == [(3, "c")]
    assert [one.number for one in read_said([whole, whole], 0)] == [1, 2, 3]
    assert [one.name for one in read_said([whole], 2)] == ["text.delta"]


def test_what_was_kept_late_is_read_in_its_place() -> None:
    """The store did not keep the first part at first, and it came again with what followed."""
    story = told("a")
    late = story.unkept()
    story.take(TextDelta(text="b"))
    first = story.unkept()
    story.lost(late)
    story.take(TextDelta(text="c"))
    again = story.unkept()
    assert first is not None
    assert again is not None
    assert [one.number for one in read_said([first, again], 0)] == [1, 2, 3]


def test_what_is_missing_is_waited_for_unless_its_owner_is_gone() -> None:
    """Calls beside each other are kept in any order."""

    def shown(*numbers: int, after: int = 0) -> list[int]:
        return [one.number for one in unbroken([Numbered(number, "", b"") for number in numbers], after)]

    assert shown(1, 2, 4, 5) == [1, 2]
    assert shown(2) == []
    assert shown(4, 5, after=3) == [4, 5]
    assert shown() == []
    later = PER_OWNER + 1
    assert shown(2, 5, later, later + 1, later + 3) == [2, 5, later, later + 1]
    assert shown(later, after=20) == [later]
    assert shown(later + 3, after=later + 1) == []


def test_half_a_surrogate_pair_is_told_as_a_question_mark() -> None:
    assert read(told("half \ud83d").unkept()) == [(1, "half ?")]
    assert json.loads(encode([TextDelta(text="\ud83d")])) == [{"text": "?"}]


async def test_whoever_watches_is_woken_by_more_and_by_the_end() -> None:
    story = told()
    with story.watched() as more, story.watched() as other:
        assert not more.is_set()
        story.take(TextDelta(text="a"))
        assert more.is_set()
        assert other.is_set()
        more.clear()
        story.end()
        assert more.is_set()
        assert story.over
        more.clear()
    story.take(TextDelta(text="b"))
    assert not more.is_set()
