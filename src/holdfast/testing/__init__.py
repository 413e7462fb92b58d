"""What tests of agents and of Holdfast itself are made of. Nothing in the package imports this."""

from holdfast.testing.virtual_loop import VirtualLoop, loop_clock

__all__ = ["VirtualLoop", "loop_clock"]
