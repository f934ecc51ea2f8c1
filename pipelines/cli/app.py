"""The ``adseq`` command. Heavy modules are imported by the commands that need them: ``adseq --help`` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.cli import import_logs as cli_import
from pipelines.cli.endings import readable
from pipelines.cli.interruption import ending_at_signals, stoppable

if TYPE_CHECKING:
    from pipelines.cli.run import Days
    from warehouse.home import Home

app = typer.Typer(
    help="Predict every day the advertiser and the product that a user converts with next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_import.app, name="import")
exports = typer.Typer(help="Write predictions into a file.", no_args_is_help=True)
app.add_typer(exports, name="export")
relevance = typer.Typer(help="Show what raters judge, and how relevant the candidates are.", no_args_is_help=True)
app.add_typer(relevance, name="relevance")
console = Console()

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="ADSEQ_HOME", help="Everything adseq writes lives under this directory.")
]
LandingOption = Annotated[
    Path | None,
    typer.Option(
        "--landing", exists=True, file_okay=False, help="The landing zone.", show_default="the one that the home reads"
    ),
]
Assignments = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting, such as training.learning_rate=1e-3; a list is JSON. Repeat it for more.",
    ),
]
DEFAULT_HOME = Path(".adseq")
LOOPBACK = "127.0.0.1"


def _show_version(wanted: bool) -> None:
    if wanted:
        from pipelines.cli.version import version

        print(f"adseq {version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Predict every day the advertiser and the product that a user converts with next."""


@app.command()
@stoppable
def demo(
    home: HomeOption = DEFAULT_HOME,
    days: Annotated[int, typer.Option(min=1, help="Number of daily partitions of a new world.")] = 3,
) -> None:
    """Write the synthetic world into the home's landing zone, if there is none, and run the whole flow on it."""
    with readable():
        from pipelines.cli.demo import ensure_world, use_demo_settings
        from warehouse.landing import Landing

        use_demo_settings(console)
        chosen = _home(home, None)
        ensure_world(Landing(chosen.landing), days, console)
        _run(chosen, None, again=False, retrain=False)


@app.command()
@stoppable
def run(
    landing: LandingOption = None,
    home: HomeOption = DEFAULT_HOME,
    days: Annotated[
        str | None, typer.Option(help="Only these landed days: 2014-07-20 or 2014-07-20..2014-07-23.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run days again that are done already.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train a model even if there is a champion.")] = False,
) -> None:
    """Bring a home up to date: the history and a model if they are missing, then every landed day in order."""
    with readable():
        from pipelines.cli.run import Days

        selected = Days.parse(days) if days else None
        _run(_home(home, landing), selected, again=again, retrain=retrain)


@app.command()
@stoppable
def validate(
    landing: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The landing zone to look at.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the contents of a landing zone, rows that would be quarantined and why, and missing parts. Writes nothing.

    Of the landing zone of --home also: which files came, changed or went after their day ran.
    """
    with readable():
        from pipelines.cli.validate import validate_landing
        from warehouse.home import Home
        from warehouse.landing import Landing

        zone = Landing(landing)
        _ = zone.manifest  # one that breaks a rule is named also where nothing has landed
        if not validate_landing(zone, Home(home), console):
            raise typer.Exit(1)


@app.command()
@stoppable
def status(
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state as JSON.")] = False,
) -> None:
    """Show a home at a glance: days landed and run, models, the served day, ages, warnings, the next command."""
    with readable():
        from pipelines.cli.homes import existing_home
        from pipelines.cli.status import show_status, status_of

        found = status_of(existing_home(home))
        if as_json:
            import json
            from dataclasses import asdict

            print(json.dumps(asdict(found), default=str, indent=1))
            return
        show_status(found, console)


@app.command()
@stoppable
def summary(
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every figure under its stable dotted name (docs/metrics.md) as JSON.")
    ] = False,
) -> None:
    """Show the results of a home: the models, the days, and where its parts lie."""
    with readable():
        if as_json:
            import json

            from pipelines.cli.summary_figures import summary_figures

            print(json.dumps(summary_figures(_readable_home(home)), indent=1))
            return
        from pipelines.cli.summary import show

        show(_readable_home(home), console)


@relevance.command("report")
@stoppable
def relevance_report(
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures of relevance by name as JSON.")] = False,
) -> None:
    """Show the relevance of the newest day: raters, the model, the funnel, the gap to the holdout, the warnings."""
    with readable():
        from pipelines.cli.show_relevance import show_relevance
        from pipelines.cli.summary_figures import summary_figures

        chosen = _readable_home(home)
        if as_json:
            import json

            found = {name: value for name, value in summary_figures(chosen).items() if name.startswith("relevance.")}
            print(json.dumps(found, indent=1))
            return
        show_relevance(chosen, console)


@app.command()
@stoppable
def check(
    home: HomeOption = DEFAULT_HOME,
    deep: Annotated[bool, typer.Option("--deep", help="Also read all rows of all tables.")] = False,
) -> None:
    """Check that a home is complete, or name each damaged part and the command that rebuilds it. Writes nothing."""
    with readable():
        from pipelines.cli.check import check_home
        from pipelines.cli.homes import existing_home

        if not check_home(existing_home(home), deep, console):
            raise typer.Exit(1)


@app.command()
@stoppable
def migrate(home: HomeOption = DEFAULT_HOME) -> None:
    """Migrate a home that an earlier version of adseq wrote to the format of this version."""
    with readable():
        from pipelines.cli.homes import existing_home, writable_home
        from pipelines.cli.migrate import migrate_home

        migrate_home(writable_home(existing_home(home).root), console)


@app.command()
def ui(home: HomeOption = DEFAULT_HOME) -> None:
    """Open Dagster and MLflow on a home, on this machine only. Ctrl-C stops both."""
    with ending_at_signals(), readable():
        from pipelines.cli.homes import writable_home
        from pipelines.cli.ui import serve

        serve(writable_home(home), console)


@app.command()
@stoppable
def rollback(
    home: HomeOption = DEFAULT_HOME,
    to: Annotated[
        str | None, typer.Option(help="A former champion, such as item-3.", show_default="the last one")
    ] = None,
) -> None:
    """Make an earlier champion serve again, after its states have caught up."""
    with readable():
        from pipelines.cli.homes import existing_home
        from pipelines.cli.rollback import roll_back_home

        roll_back_home(_home(existing_home(home).root, None), to, console)


@app.command()
def serve(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Other machines reach every address but loopback: set ADSEQ_TOKEN."),
    ] = LOOPBACK,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes; one per core is enough.")] = 1,
) -> None:
    """Answer requests for candidates over HTTP, and follow new publications. Ctrl-C stops the service."""
    with readable():
        from pipelines.cli.serve import serve_candidates

        serve_candidates(_readable_home(home), host, port, processes=processes, console=console)


@app.command()
def proxy(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where nginx listens.")] = 8080,
    upstream: Annotated[int, typer.Option(min=1, max=65535, help="Where `adseq serve` listens.")] = 8081,
    host: Annotated[str, typer.Option(help="Address that nginx listens on.")] = LOOPBACK,
) -> None:
    """Put nginx, with the service's bounds, in front of `adseq serve`. Ctrl-C stops nginx."""
    with readable():
        from pipelines.cli.proxy import run_proxy
        from settings import Settings

        directory = _readable_home(home).root / "proxy"
        run_proxy(port, upstream, directory, limits=Settings().serving, host=host)


@app.command()
@stoppable
def recommend(
    user: Annotated[str, typer.Argument(help="A user_id.")],
    subject: Annotated[str | None, typer.Option(help="The item_id of the item that the user looks at.")] = None,
    query: Annotated[str | None, typer.Option(help="The text of the user's search.")] = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, max=100, help="Candidates to show.")] = 10,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show the history and the candidates of a user, with and without context, in the terminal."""
    with readable():
        from pipelines.cli.recommend import show_candidates

        show_candidates(_readable_home(home), user, subject, query=query, count=count, console=console)


@app.command()
@stoppable
def forget(
    users: Annotated[list[str], typer.Argument(help="The users' ids, as the landing zone has them.")],
    home: HomeOption = DEFAULT_HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete users from the landing zone and from the home, for good, and refuse their later rows."""
    with readable():
        from pipelines.cli.forget import forget_users
        from pipelines.cli.homes import writable_home

        chosen = writable_home(_readable_home(home).root)
        if not yes:
            count = f"{len(users)} users" if len(users) > 1 else "this user"
            typer.confirm(f"Remove {count} from {chosen.landing} and {chosen.root}, for good?", abort=True)
        forget_users(chosen, users, console)


@app.command("evaluate")
@stoppable
def evaluate_split(
    split: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A directory that `adseq split` made.")],
    landing: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="The landing zone that item attributes come from.")
    ],
    export: Annotated[
        Path,
        typer.Option(
            help="File of the ranked lists, for an outside scorer. Several models or seeds: one file each.",
            dir_okay=False,
        ),
    ],
    home: HomeOption = DEFAULT_HOME,
    level: Annotated[str, typer.Option(help="item, or advertiser: the advertisers of the targets.")] = "item",
    model: Annotated[
        list[str],
        typer.Option(
            help="Model that answers. Repeat it to compare the first model with the others.",
            show_default="contextual, or advertiser_model",
        ),
    ] = [],  # noqa: B006
    seed: Annotated[
        str, typer.Option(help="Seed of the training. Several seeds, such as 0,1,2, show the spread.")
    ] = "0",
    assignments: Assignments = [],  # noqa: B006
    minimum_train_events: Annotated[
        int,
        typer.Option("--min-train-events", min=0, help="Score only targets with at least this many training events."),
    ] = 0,
) -> None:
    """Learn from a split's training part only, answer its queries, export the lists, print and log the metrics.

    Models: popularity, recent_popularity, item_knn, rule, parts, mean_pooling, max_pooling, sequential, contextual,
    contextual_cross_attention; with context items also sequential_appended (the item appended to the history, the
    encoder run again) and contextual_without_context. Of advertisers: popularity, recent_popularity,
    recent_advertisers (the user's own, newest first), mean_pooling, advertiser_model.
    """
    with readable():
        from pipelines.cli.errors import RunRefused
        from pipelines.cli.homes import writable_home
        from pipelines.cli.overrides import overridden, parse_seeds
        from pipelines.evaluate.advertisers import evaluate_advertisers
        from pipelines.evaluate.command import Evaluation, evaluate
        from pipelines.instance import use_home
        from settings import Settings
        from warehouse.landing import Landing

        seeds, settings = parse_seeds(seed), overridden(Settings(), assignments)
        levels = {"item": (evaluate, "contextual"), "advertiser": (evaluate_advertisers, "advertiser_model")}
        if level not in levels:
            raise RunRefused(f"--level {level!r} is unknown; there are {', '.join(levels)}.")
        chosen = writable_home(home)
        use_home(chosen)
        run, usual = levels[level]
        run(
            Evaluation(
                split=split,
                landing=Landing(landing),
                home=chosen,
                models=model or [usual],
                seeds=seeds,
                minimum_train_events=minimum_train_events,
                export=export,
                settings=settings,
            )
        )


@app.command("split")
@stoppable
def split_log(
    landing: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The landing zone to cut.")],
    out: Annotated[Path, typer.Option("--out", help="The new directory of the split.")],
    protocol: Annotated[
        str,
        typer.Option(help="temporal: the next items of a user. context: the other items of a day, given its first."),
    ] = "temporal",
    at: Annotated[
        str, typer.Option(help="The cut-off: a quantile of the times of conversions, a day, or an instant.")
    ] = "0.9",
    window_days: Annotated[
        float | None,
        typer.Option(help="Days after the cut-off.", show_default="prediction_window_days of the manifest"),
    ] = None,
    users: Annotated[float, typer.Option(help="Share of the users to keep.")] = 1.0,
) -> None:
    """Cut a log into a fixed split: the part to learn from, the queries and their targets."""
    with readable():
        from pipelines.cli.errors import RunRefused
        from pipelines.evaluate.make_split import Cut, Protocol, split_landing
        from settings import Settings
        from warehouse.landing import Landing

        if protocol not in set(Protocol):
            raise RunRefused(f"--protocol {protocol!r} is unknown; there are {', '.join(Protocol)}.")
        zone = Landing(landing)
        cut = Cut(Protocol(protocol), at, window_days or zone.manifest.prediction_window_days, users)
        meta = split_landing(zone, cut, out, Settings().data)
        console.print(", ".join(f"{name} {value}" for name, value in meta.items()), highlight=False)
        console.print(
            f"adseq evaluate --split {out} --landing {landing} --export lists.parquet", highlight=False, soft_wrap=True
        )


@app.command("tune")
@stoppable
def tune_settings(
    home: HomeOption = DEFAULT_HOME,
    split: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A split, of which the training part is used.",
            show_default="the log of the home",
        ),
    ] = None,
    landing: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="With --split: the landing zone that item attributes come from."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Number of trials in all. The same command continues after the last trial.")
    ] = 20,
    objective: Annotated[
        str, typer.Option(help="Maximised: recall@100, recall@10, context_recall@100 or context_recall@10.")
    ] = "recall@100",
    assignments: Assignments = [],  # noqa: B006
) -> None:
    """Search for better settings on a validation slice inside the training period, starting from the present ones.

    A setting that --set names is fixed; the rest of the space is searched around it.
    """
    with readable():
        from pipelines.cli.homes import existing_home, writable_home
        from pipelines.cli.overrides import overridden
        from pipelines.cli.tune import Search, tune
        from pipelines.instance import use_home
        from settings import Settings
        from warehouse.landing import Landing

        settings = overridden(Settings(), assignments)
        chosen = writable_home(home if split else existing_home(home).root)
        use_home(chosen)
        fixed = {assignment.partition("=")[0].strip() for assignment in assignments}
        tune(Search(chosen, split, Landing(landing or chosen.landing), trials, objective, settings, fixed), console)


@exports.command("candidates")
@stoppable
def export_candidates(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The file to write: .parquet or .csv.")],
    count: Annotated[
        int, typer.Option("--count", "-k", min=1, max=1000, help="Number of items and of advertisers per user.")
    ] = 100,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write the best items and advertisers of every user as of the newest day, best first."""
    with readable():
        from assets.common.workspace import Workspace
        from pipelines.cli.export import export_candidates as write
        from pipelines.instance import look_at_home

        look_at_home(_readable_home(home))
        write(Workspace.from_environment(), out, count, console)


@relevance.command("queue")
@stoppable
def relevance_queue(
    home: HomeOption = DEFAULT_HOME,
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="Pairs to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and the first pairs as JSON.")] = False,
) -> None:
    """Show the pairs that raters get next: counts by stratum, how many are judged, the first ones with their titles."""
    with readable():
        from pipelines.cli.show_queue import queue_figures, queue_of, show_queue
        from settings import Settings

        chosen, settings = _readable_home(home), Settings()
        queue = queue_of(chosen)
        if as_json:
            import json

            print(json.dumps(queue_figures(queue, settings, count), indent=1))
            return
        show_queue(chosen, queue, settings, count=count, console=console)


def _home(root: Path, landing: Path | None) -> Home:
    """Return the home, ready to be written, with ``landing`` as its landing zone."""
    from pipelines.cli.errors import RunRefused
    from pipelines.cli.homes import writable_home
    from pipelines.instance import use_home
    from warehouse.landing import Landing
    from warehouse.open_home import keep_private

    keep_private()
    home = writable_home(root)
    _ = Landing(landing or home.landing).manifest  # one that breaks a rule is refused before a home is made
    if landing is not None and landing.expanduser().absolute() != home.landing:
        if (home.tables / "events").exists():
            raise RunRefused(
                f"{home.root} was built from {home.landing}, and a home holds one log. "
                f"For {landing} give another --home."
            )
        home.use_landing(landing)
    use_home(home)
    return home


def _readable_home(root: Path) -> Home:
    """Return the home at ``root`` after a check that this version can read the home."""
    from pipelines.cli.homes import existing_home
    from warehouse.open_home import open_for_reading

    home = existing_home(root)
    open_for_reading(home)
    return home


def _run(home: Home, days: Days | None, *, again: bool, retrain: bool) -> None:
    """Run the flow and print the closing tables. The home is in the environment before the definitions are loaded."""
    from pipelines.cli.run import Local
    from pipelines.cli.summary import show
    from pipelines.definitions import defs
    from pipelines.instance import instance

    with instance() as opened:
        Local(home, defs, opened, console).run(days, again=again, retrain=retrain)
    show(home, console)
