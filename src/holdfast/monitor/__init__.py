"""
The behaviour monitor: notices an agent that loops, errs, stalls, overspends or answers without evidence.

It is told each step of a run and answers with what is wrong, on which evidence, and what to do: plain data that
adapters carry out. Thresholds come from recordings of real agents; what does not count as a sign matters as much as
what does. Read ``monitor.py`` first, then one state, such as ``deadlock.py``.
"""

from holdfast.monitor.breaker import AgentBreaker
from holdfast.monitor.history import History, signature
from holdfast.monitor.monitor import Monitor
from holdfast.monitor.norms import Norms, Success
from holdfast.monitor.orders import Orders
from holdfast.monitor.spec import MonitorSpec, ToolRule
from holdfast.monitor.steps import Answer, Budget, Call, Claim, Step
from holdfast.monitor.verdicts import (
    AskUser,
    BlockCall,
    Evidence,
    FinishOnly,
    ForceFinal,
    ForceOther,
    HideTool,
    Intervention,
    Nudge,
    Outcome,
    RefuseFinish,
    Replan,
    Report,
    Severity,
    State,
    StopPartial,
    SwitchModel,
    TrustedOnly,
    Verdict,
    Wait,
)

__all__ = [
    "AgentBreaker",
    "Answer",
    "AskUser",
    "BlockCall",
    "Budget",
    "Call",
    "Claim",
    "Evidence",
    "FinishOnly",
    "ForceFinal",
    "ForceOther",
    "HideTool",
    "History",
    "Intervention",
    "Monitor",
    "MonitorSpec",
    "Norms",
    "Nudge",
    "Orders",
    "Outcome",
    "RefuseFinish",
    "Replan",
    "Report",
    "Severity",
    "State",
    "Step",
    "StopPartial",
    "Success",
    "SwitchModel",
    "ToolRule",
    "TrustedOnly",
    "Verdict",
    "Wait",
    "signature",
]
