"""``adseq import``: a log of one's own, or a public one, becomes a landing zone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.cli.endings import errors, readable
from pipelines.cli.interruption import stoppable

app = typer.Typer(help="Turn a log of your own, or a public one, into a landing zone.", no_args_is_help=True)
console = Console()

Source = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The directory with the log's files.")]
Out = Annotated[Path, typer.Option("--out", help="The landing zone to write.")]
DailyDays = Annotated[
    int, typer.Option(min=1, help="Number of last days that land one by one; the days before are the history.")
]


@app.command("csv")
@stoppable
def import_csv(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            exists=True, dir_okay=False, help="CSV or other separated text, JSON lines (each also .gz), or Parquet."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="mapping.toml, which says the meaning of each column."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The landing zone to write.")] = None,
    sketch: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Print a first mapping of this file, and stop.")
    ] = None,
) -> None:
    """Your own export: a mapping gives the names, units, times and values of its columns."""
    with readable():
        from settings import Settings
        from warehouse.importers.mapping import Mapping
        from warehouse.importers.mapping_sketch import sketch_of
        from warehouse.importers.tabular import import_tables
        from warehouse.landing import Landing

        if sketch is not None:
            sketched = sketch_of(sketch)
            print(sketched.text)
            for name in sketched.missing:
                errors.print(
                    f"No column of {sketch} looks like {name}: say in the mapping which one it is.",
                    markup=False,
                    soft_wrap=True,
                )
            return
        if not files or mapping is None or out is None:
            raise typer.BadParameter("give FILES, --mapping and --out; or --sketch FILE for a first mapping")
        _tell(import_tables(files, Mapping.read(mapping), Landing(out), Settings().data.memory_gib).lines(), out)


@app.command("amazon-reviews")
@stoppable
def import_amazon_reviews(source: Source, out: Out, daily_days: DailyDays = 3) -> None:
    """Amazon product reviews: a review is a checkout, the brand is the advertiser."""
    with readable():
        from warehouse.importers.amazon_reviews import import_amazon_reviews as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days).lines(), out)


@app.command("globo-clicks")
@stoppable
def import_globo_clicks(source: Source, out: Out, daily_days: DailyDays = 2) -> None:
    """The Globo.com news log: clicks are positives, the article being read is the context of the next click."""
    with readable():
        from warehouse.importers.globo_clicks import import_globo_clicks as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days).lines(), out)


@app.command("rees46")
@stoppable
def import_rees46(source: Source, out: Out, daily_days: DailyDays = 3) -> None:
    """REES46 multi-category shop (monthly CSV files): views, carts, purchases; the brand is the advertiser."""
    with readable():
        from warehouse.importers.rees46 import import_rees46 as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days).lines(), out)


@app.command("complete-journey")
@stoppable
def import_complete_journey(source: Source, out: Out, daily_days: DailyDays = 3) -> None:
    """dunnhumby Complete Journey: households, baskets, redeemed coupons; the manufacturer is the advertiser."""
    with readable():
        from warehouse.importers.complete_journey import import_complete_journey as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days).lines(), out)


@app.command("retailrocket")
@stoppable
def import_retailrocket(source: Source, out: Out, daily_days: DailyDays = 3) -> None:
    """Retailrocket: views, carts, transactions; dated categories and availability."""
    with readable():
        from warehouse.importers.retailrocket import import_retailrocket as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days).lines(), out)


@app.command("pinterest-conversions")
@stoppable
def import_pinterest_conversions(
    source: Source,
    out: Out,
    daily_days: DailyDays = 3,
    advertiser_id: Annotated[str, typer.Option(help="Whose account the events were sent to.")] = "account",
) -> None:
    """Events as the Pinterest Conversions API takes them: JSON lines, or documents with a list `data`."""
    with readable():
        from warehouse.importers.pinterest_conversions import import_pinterest_conversions as convert
        from warehouse.landing import Landing

        _tell(convert(source, Landing(out), daily_days, advertiser_id).lines(), out)


def _tell(lines: list[str], out: Path) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Next: adseq run --landing {out} --home HOME", highlight=False, markup=False, soft_wrap=True)
