"""What tests of agents and of Holdfast itself are made of. Nothing in the package imports this."""

from holdfast.testing.coord import COORD_CHECKS, check_coord
from holdfast.testing.store_words import make_turn
from holdfast.testing.stores import STORE_CHECKS, check_store
from holdfast.testing.virtual_loop import VirtualLoop, loop_clock

__all__ = [
    "COORD_CHECKS",
    "STORE_CHECKS",
    "VirtualLoop",
    "check_coord",
    "check_store",
    "loop_clock",
    "make_turn",
]
