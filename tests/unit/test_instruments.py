"""Families of series: made from the catalogue, from the start where they can be, and never more than are allowed."""

import pytest

from holdfast.telemetry import OTHER
from holdfast.telemetry.catalogue import Label, Metric
from holdfast.telemetry.catalogue_process import LABEL_OVERFLOW
from holdfast.telemetry.instruments import Instruments

COLOUR = Label("colour", 2)
SIZE = Label("size", 2, ("small", "large"))


def counter(*labels: Label, name: str = "agent_hats_total") -> Metric:
    return Metric(name=name, kind="counter", help="Hats.", labels=labels)


def series(make: Instruments, name: str) -> dict[tuple[str, ...], float]:
    found = [sample for family in make.registry.collect() for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in found}


def folded(make: Instruments, name: str = "agent_hats_total") -> float:
    return series(make, LABEL_OVERFLOW.name)[name,]


def test_without_labels_there_is_one_series() -> None:
    make = Instruments()
    hats = make.counter(counter())
    assert series(make, "agent_hats_total") == {(): 0}
    hats.labels().inc()
    assert series(make, "agent_hats_total") == {(): 1}


def test_what_is_known_beforehand_has_its_series_from_the_start() -> None:
    make = Instruments()
    make.counter(counter(SIZE))
    make.counter(counter(COLOUR, SIZE, name="agent_coats_total"))
    assert series(make, "agent_hats_total") == {("small",): 0, ("large",): 0}
    assert series(make, "agent_coats_total") == {}


def test_a_name_that_is_new_begins_with_every_value_of_what_is_known() -> None:
    """And on every metric where it is all that was missing, so that none of them lacks a zero."""
    make = Instruments()
    hats = make.counter(counter(COLOUR, SIZE))
    make.counter(counter(COLOUR, name="agent_coats_total"))
    make.counter(counter(COLOUR, Label("place", 2), name="agent_shelves_total"))
    hats.labels("red", "small").inc()
    assert series(make, "agent_hats_total") == {("red", "small"): 1, ("red", "large"): 0}
    assert series(make, "agent_coats_total") == {("red",): 0}
    assert series(make, "agent_shelves_total") == {}


def test_names_beyond_the_bound_are_folded_and_counted_and_none_changes() -> None:
    make = Instruments()
    hats = make.counter(counter(COLOUR))
    for _ in range(2):
        for colour in ("red", "blue", "green", "pink"):
            hats.labels(colour).inc()
    assert series(make, "agent_hats_total") == {("red",): 2, ("blue",): 2, (OTHER,): 4}
    assert folded(make) == 4


def test_a_name_that_is_folded_on_one_metric_is_folded_on_all() -> None:
    make = Instruments()
    hats, coats = make.counter(counter(COLOUR)), make.counter(counter(COLOUR, name="agent_coats_total"))
    for colour in ("red", "blue"):
        hats.labels(colour).inc()
    coats.labels("green").inc()
    assert series(make, "agent_coats_total") == {("red",): 0, ("blue",): 0, (OTHER,): 1}
    assert (folded(make), folded(make, "agent_coats_total")) == (0, 1)


def test_what_is_outside_of_a_closed_set_is_folded() -> None:
    make = Instruments()
    make.counter(counter(SIZE)).labels("huge").inc()
    assert series(make, "agent_hats_total") == {("small",): 0, ("large",): 0, (OTHER,): 1}
    assert folded(make) == 1


def test_who_asks_for_the_other_is_given_it_and_takes_nobodys_place() -> None:
    make = Instruments()
    hats = make.counter(counter(COLOUR, SIZE))
    hats.labels(OTHER, "small").inc()
    hats.labels("red", "small").inc()
    hats.labels("blue", OTHER).inc()
    assert set(series(make, "agent_hats_total")) == {
        *((colour, size) for colour in (OTHER, "red", "blue") for size in SIZE.values),
        ("blue", OTHER),
    }
    assert folded(make) == 0


def test_a_name_that_no_page_can_hold_is_folded() -> None:
    make = Instruments()
    make.counter(counter(COLOUR)).labels("\ud83d").inc()
    assert series(make, "agent_hats_total") == {(OTHER,): 1}


@pytest.mark.parametrize("values", [(), ("red",), ("red", "small", "old")])
def test_as_many_values_as_labels_are_needed(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        Instruments().counter(counter(COLOUR, SIZE)).labels(*values)


def test_what_is_cleared_can_be_set_anew() -> None:
    make = Instruments()
    waiting = make.gauge(Metric(name="agent_hats", kind="gauge", help="Hats.", labels=(COLOUR,)))
    waiting.labels("red").set(2)
    waiting.clear()
    assert series(make, "agent_hats") == {}
    waiting.labels("red").inc()
    assert series(make, "agent_hats") == {("red",): 1}


def test_more_metrics_than_there_is_room_for_still_count_what_they_fold() -> None:
    make = Instruments()
    for n in range(LABEL_OVERFLOW.labels[0].bound + 2):
        made = make.counter(counter(SIZE, name=f"agent_n{n}_total"))
    made.labels("huge").inc()
    assert folded(make, OTHER) == 1
