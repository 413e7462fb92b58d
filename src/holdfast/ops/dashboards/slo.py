"""Whether what was promised is kept, and for how long it will be."""

from holdfast.ops.panels import Dashboard, Panel, Query
from holdfast.ops.slo import BASE, BUDGET_LEFT, PAGES, PERIOD, SLOS, TICKETS, error_ratio

_BURN = "max by (slo) ({} / agent:slo_budget:ratio)"

OBJECTIVES = Dashboard(
    "slo",
    "Holdfast: objectives and budgets",
    "Whether what was promised is kept, and for how long it will be.",
    {
        "Budgets": (
            *(
                Panel(
                    f"Budget left: {slo.name}",
                    f"{slo.promise} 100 % while nothing of {PERIOD} was used, below 0 when it is overdrawn.",
                    "percentunit",
                    (Query(f'min({BUDGET_LEFT}{{slo="{slo.name}"}})', slo.name),),
                    "stat",
                    8,
                    ((None, "red"), (0.1, "orange"), (0.5, "green")),
                    least=None,
                )
                for slo in SLOS
            ),
            Panel(
                "Budget left",
                "Whoever is near 0 ships nothing that could cost more.",
                "percentunit",
                (Query(f"min by (slo) ({BUDGET_LEFT})", "{{slo}}"),),
                least=None,
                most=1,
            ),
            Panel(
                "Objectives",
                "Share of events that is to be good.",
                "percentunit",
                (Query("max by (slo) (agent_slo_objective_ratio)", ""),),
                "table",
            ),
        ),
        "Burning": (
            *(
                Panel(
                    f"Burn rate over {speed.long}",
                    f"1 uses it up in {PERIOD}. Above {speed.factor:g}, over {speed.short} too, it is a {kind}.",
                    "none",
                    tuple(
                        Query(_BURN.format(error_ratio(window)), f"{{{{slo}}}} over {window}")
                        for window in (speed.long, speed.short)
                    ),
                    steps=((speed.factor, "red"),),
                )
                for kind, speeds in (("page", PAGES), ("ticket", TICKETS))
                for speed in speeds
            ),
        ),
        "Events": (
            Panel(
                "Error ratio",
                "Share of events that were bad, over 5 minutes.",
                "percentunit",
                (Query(f"max by (slo) ({error_ratio(BASE)})", "{{slo}}"),),
            ),
            Panel(
                "Events",
                "Events each second that an objective counts.",
                "ops",
                (Query(f"sum by (slo) (agent:slo_events:rate{BASE})", "{{slo}}"),),
            ),
            Panel(
                "Bad events",
                "Those of them that were bad.",
                "ops",
                (Query(f"sum by (slo) (agent:slo_bad_events:rate{BASE})", "{{slo}}"),),
            ),
        ),
    },
)
