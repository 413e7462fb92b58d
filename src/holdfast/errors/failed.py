"""What was begun and failed, and what was never started."""

from holdfast.errors.base import HoldfastError


class Failed(HoldfastError):
    """It was begun, and something it needed failed."""

    code = "failed"
    public = "The turn failed."


class ModelUnavailable(Failed):
    """The provider could not be reached, is overloaded, or is limiting us."""

    code = "model_unavailable"
    status = 503
    retryable = True
    public = "The model provider is not available."


class ModelRejected(Failed):
    """The provider refused the request: the credential, the model's name or the input. Sending it again won't help."""

    code = "model_rejected"
    status = 502
    public = "The model provider refused the request."


class StreamBroken(Failed):
    """An answer broke off after its first part was passed on. It was not asked for again."""

    code = "stream_broken"
    status = 502
    retryable = True
    public = "The answer broke off before its end."


class ModelMalformed(Failed):
    """The model's answer could not be used: not parsable, or not what the agent's output type allows."""

    code = "model_malformed"
    status = 502
    public = "The model's answer could not be used."


class AgentFailed(Failed):
    """The agent's own code raised an exception that is not one of these."""

    code = "agent_failed"
    public = "The agent failed."


class TurnCancelled(Failed):
    """The turn was stopped before its end, as the server was stopping."""

    code = "turn_cancelled"
    status = 503
    retryable = True
    public = "The turn was stopped before it finished."


class TurnAbandoned(Failed):
    """The turn was taken over as often as it may be, from one server after the other that died. It is run no more."""

    code = "turn_abandoned"
    public = "The turn was given up after several servers failed while they ran it."


class StoppedPartial(Failed):
    """
    The monitor ended the turn, with what it had by then for an answer, or with a question. It is no failure to callers.

    Attributes:
        reply: What is answered.
        asks: Whether that is a question to the one who asked.
        budget: Whether a budget was used up.
    """

    code = "stopped_partial"
    public = "The agent was stopped before the end."

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        reply: str = "",
        asks: bool = False,
        budget: bool = False,
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.reply = reply
        self.asks = asks
        self.budget = budget


class InDoubt(Failed):
    """
    A call that must not be made twice was under way when its server died, and nobody knows whether it took effect.

    The turn waits until somebody says what happened, and then goes on.
    """

    code = "in_doubt"
    status = 409
    public = "Nobody knows whether an effect of this turn happened; it waits until somebody says so."
    detail_is_public = True


class Diverged(Failed):
    """
    The agent, run again after its server died, asked for something else than before. It was stopped there.

    Going on would repeat effects under other names.
    """

    code = "diverged"
    public = "The turn could not be continued: the agent did something else than before."
    detail_is_public = True


class UnitFailed(Failed):
    """A call that failed when the turn was run before, with an error that cannot be made again. It was not made."""

    code = "unit_failed"
    public = "A call of this turn failed earlier."


class StoreUnavailable(Failed):
    """The database did not answer. Nothing was half-written."""

    code = "store_unavailable"
    status = 503
    retryable = True
    public = "The store is not available."


class Misconfigured(HoldfastError):
    """The settings are wrong. Nothing was started; the command line shows ``detail`` and exits with 2."""

    code = "misconfigured"
    public = "The server is not configured correctly."
