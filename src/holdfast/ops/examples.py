"""What Prometheus and Alertmanager are told, to begin with: copy it, and put in your own addresses."""

PROMETHEUS = """\
# Budgets look back 30 days: start Prometheus with --storage.tsdb.retention.time=35d, or keep them elsewhere. Dots on
# panels of durations lead to traces: they need --enable-feature=exemplar-storage.
global:
  scrape_interval: 15s
  evaluation_interval: 15s

rule_files:
  - rules/*.yml

alerting:
  alertmanagers:
    - static_configs:
        - targets: [127.0.0.1:9093]

scrape_configs:
  - job_name: JOB
    static_configs:
      - targets: [127.0.0.1:9090] # telemetry.metrics_port of each process
"""

ALERTMANAGER = """\
# Each receiver needs an address: a pager for `page`, a tracker or a channel for `ticket`. `info` is shown, and told to
# nobody. https://prometheus.io/docs/alerting/latest/configuration/
route:
  receiver: tickets
  group_by: [alertname, job, slo, agent, model, tool, resource]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
    - matchers: [severity = page]
      receiver: pager
      group_wait: 10s
      repeat_interval: 1h
    - matchers: [severity = info]
      receiver: nobody

inhibit_rules:
  # Whoever is awake for a budget need not read that it burns slowly too.
  - source_matchers: [alertname = HoldfastBudgetBurnsFast]
    target_matchers: [alertname = HoldfastBudgetBurnsSlowly]
    equal: [job, slo]
  # What an open circuit refuses is known; so is that it opened before.
  - source_matchers: [alertname = HoldfastBreakerOpen]
    target_matchers: [alertname = HoldfastBreakerFlaps]
    equal: [job, resource]
  # When all are gone, each is.
  - source_matchers: [alertname = HoldfastAbsent]
    target_matchers: [alertname = HoldfastInstanceDown]

receivers:
  - name: pager
    webhook_configs:
      - url: http://127.0.0.1:9999/page
        send_resolved: true
  - name: tickets
    webhook_configs:
      - url: http://127.0.0.1:9999/ticket
        send_resolved: true
  - name: nobody
"""
