"""Every error raised on purpose: what its caller, its catcher and its reader rely on."""

import copy
import pickle
import re
from http import HTTPStatus

import pytest

from holdfast import errors
from holdfast.errors import Denied, Failed, HoldfastError, Invalid, Misconfigured, Refused, TimedOut, every_error

EVERY = [error for error in every_error() if error.__module__.startswith(errors.__name__)]  # Other tests make some too.
every = pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)


def test_codes_are_stable_names_and_each_is_its_own() -> None:
    codes = [error.code for error in EVERY]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@every
def test_each_says_all_there_is_to_say(error: type[HoldfastError]) -> None:
    assert error.status in {status.value for status in HTTPStatus if status.value >= 400}
    assert re.fullmatch(r"[A-Z].*\.", error.public)
    assert error.__doc__


@every
def test_without_a_detail_the_public_text_is_the_detail(error: type[HoldfastError]) -> None:
    assert (error().detail, str(error()), error().retry_after_s) == (error.public, error.public, None)
    told = error("what happened", retry_after_s=3)
    assert (told.detail, str(told), told.retry_after_s) == ("what happened", "what happened", 3)


@every
def test_each_can_be_copied_and_sent_to_another_process(error: type[HoldfastError]) -> None:
    told = error("what happened", retry_after_s=3)
    for again in (copy.copy(told), pickle.loads(pickle.dumps(told))):
        assert type(again) is error
        assert (again.detail, again.retry_after_s) == ("what happened", 3)


@every
def test_each_is_split_by_what_its_catcher_does_next(error: type[HoldfastError]) -> None:
    kinds = [kind for kind in (Invalid, Denied, Refused, TimedOut, Failed, Misconfigured) if issubclass(error, kind)]
    assert len(kinds) == (0 if error is HoldfastError else 1)


@every
def test_only_what_may_help_is_retryable(error: type[HoldfastError]) -> None:
    if issubclass(error, Refused | TimedOut):
        assert error.retryable
    if issubclass(error, Denied | Misconfigured):
        assert not error.retryable
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        assert error.retryable


def test_details_of_what_failed_inside_are_for_the_log_alone() -> None:
    for error in EVERY:
        if error in (errors.InDoubt, errors.Diverged):  # They say what the caller has to do.
            assert error.detail_is_public
        elif issubclass(error, Failed | Misconfigured) or error in (HoldfastError, errors.Unauthenticated):
            assert not error.detail_is_public


def test_the_drawing_is_the_tree() -> None:
    """Name, place and status of each, in the order of the list."""
    drawing = (errors.__doc__ or "").split("::")[1].split("An error is split")[0]
    line = re.compile(r"^ {4}(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3}))?", re.MULTILINE)
    drawn = [(found["name"], len(found["indent"]) // 4, found["status"]) for found in line.finditer(drawing)]
    assert [name for name, _, _ in drawn] == [error.__name__ for error in EVERY]
    for (name, depth, status), error in zip(drawn, EVERY, strict=True):
        assert depth == len(error.__mro__) - len(HoldfastError.__mro__), name
        assert status is None or int(status) == error.status, name
