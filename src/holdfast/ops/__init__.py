"""
What operators run Holdfast with: objectives, rules, alerts and dashboards.

::

    telemetry.catalogue ─▶ slo · recording · alerts · dashboards ─▶ lint ─▶ render ─▶ deploy/
"""
