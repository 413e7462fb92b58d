"""Pydantic AI's errors as ours."""

from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)

from holdfast.errors import (
    AgentFailed,
    AttemptTimedOut,
    HoldfastError,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
    Refused,
    StreamBroken,
)


def translate(error: BaseException) -> HoldfastError:
    """Pydantic AI's error as one of ours. Its text may quote the provider's, so it goes into ``detail`` alone."""
    match error:
        case HoldfastError():
            return error
        case ModelAPIError(__cause__=Refused() | StreamBroken() as known):
            return known
        case ModelRequestTimeout() | ModelTimeoutError():
            return AttemptTimedOut(f"the model {error.model_name} did not answer in time")
        case ModelRequestRejectedError():
            return ModelRejected(f"the provider of {error.model_name} refused: {type(error).__name__}")
        case ModelAPIError():
            detail = f"the provider of {error.model_name} failed: {type(error).__name__}"
            return ModelUnavailable(detail, retry_after_s=error.retry_after)
        case FallbackExceptionGroup():
            causes = [translate(cause) for cause in error.exceptions]
            return next((cause for cause in causes if cause.retryable), causes[-1])
        case UnexpectedModelBehavior():
            return ModelMalformed(f"the model's answer could not be used: {type(error).__name__}")
        case _:
            return AgentFailed(f"the agent raised {type(error).__name__}")
