"""The one error a tool raises."""

from typing import ClassVar

from holdfast.resilience import FailureClass


class ToolError(Exception):
    """
    The tool cannot do what was asked.

    Its message is written for the model, which reads it and goes on: it says what was wrong and what would work, and
    never names anything outside the folder that tools may see. Nothing had been changed when it was raised.
    """

    failure_class: ClassVar[FailureClass] = FailureClass.TOOL_ERROR
