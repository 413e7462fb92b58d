"""The dashboards. Each is for one question, and begins with the numbers that answer it at a glance."""

from holdfast.ops.dashboards.llm import LLM
from holdfast.ops.dashboards.overview import OVERVIEW
from holdfast.ops.dashboards.resilience import RESILIENCE
from holdfast.ops.dashboards.slo import OBJECTIVES
from holdfast.ops.dashboards.tools import TOOLS

DASHBOARDS = (OVERVIEW, TOOLS, LLM, RESILIENCE, OBJECTIVES)

__all__ = ["DASHBOARDS", "LLM", "OBJECTIVES", "OVERVIEW", "RESILIENCE", "TOOLS"]
