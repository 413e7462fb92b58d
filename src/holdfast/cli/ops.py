"""``holdfast ops``: the rules, alerts and dashboards that operators run it with."""

import re
from pathlib import Path
from typing import Annotated

import typer

from holdfast.errors import Misconfigured
from holdfast.ops.render import Place, problems, stale, write

app = typer.Typer(help="Render and check rules, alerts and dashboards.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the files are.")]
Job = Annotated[str, typer.Option("--job", help="What Prometheus calls the job that scrapes Holdfast.")]
Namespace = Annotated[str, typer.Option("--namespace", help="The setting telemetry.metrics_namespace.")]
Runbooks = Annotated[str, typer.Option("--runbooks", metavar="URL", help="Where the runbooks are, for links.")]
Grafana = Annotated[str, typer.Option("--grafana", metavar="URL", help="Where Grafana is, for links.")]

HERE, DEFAULT = Path("deploy"), Place()


@app.command()
def render(
    out: Out = HERE,
    job: Job = DEFAULT.job,
    namespace: Namespace = DEFAULT.namespace,
    runbooks: Runbooks = DEFAULT.runbooks,
    grafana: Grafana = DEFAULT.grafana,
) -> None:
    """Write everything into a folder, and name what has changed."""
    place = _place(job, namespace, runbooks, grafana)
    _refuse(problems())
    try:
        written = write(out, place)
    except OSError as error:
        raise Misconfigured(f"cannot write to {error.filename}: {error.strerror}; correct --out") from error
    for path in written:
        print(f"{path} written")


@app.command()
def check(
    out: Out = HERE,
    job: Job = DEFAULT.job,
    namespace: Namespace = DEFAULT.namespace,
    runbooks: Runbooks = DEFAULT.runbooks,
    grafana: Grafana = DEFAULT.grafana,
) -> None:
    """Say whether the rules are right and the folder is up to date; where not, every reason and exit code 2."""
    place = _place(job, namespace, runbooks, grafana)
    _refuse([*problems(), *stale(out, place)])
    print(f"OK: {out} is what would be rendered")


def _place(job: str, namespace: str, runbooks: str, grafana: str) -> Place:
    """
    What the files are rendered for.

    Raises:
        Misconfigured: there can be no such job or namespace.
    """
    if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", namespace):
        raise Misconfigured(f"--namespace must be letters, digits and underscores, got {namespace!r}")
    if not job.strip() or not job.isprintable():
        raise Misconfigured(f"--job must not be blank, and must be printable, got {job!r}")
    return Place(job, namespace, runbooks.rstrip("/"), grafana.rstrip("/"))


def _refuse(found: list[str]) -> None:
    """
    Stop where there is something to put right.

    Raises:
        Misconfigured: each of these is one line of its text.
    """
    if found:
        raise Misconfigured("\n".join(found))
