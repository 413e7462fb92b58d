"""HTTP: the only layer that knows it."""

from holdfast.server.app import build_app
from holdfast.server.process import run_server

__all__ = ["build_app", "run_server"]
