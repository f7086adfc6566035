"""The `headrace` command. Commands load what they need when they run, so that `--help` is instant."""

from __future__ import annotations

import typer

from headrace.cli.answers import recommend, search
from headrace.cli.auth import auth
from headrace.cli.cleaning import cleaning
from headrace.cli.demo.command import demo
from headrace.cli.doctor.command import doctor
from headrace.cli.facts import facts
from headrace.cli.features import features
from headrace.cli.forgetting.command import forget
from headrace.cli.identity import identity
from headrace.cli.importing import imports, mapping
from headrace.cli.letters import letters
from headrace.cli.moving.backup import backup, restore
from headrace.cli.moving.move import move
from headrace.cli.options import Json, told
from headrace.cli.releases import releases
from headrace.cli.replay import replay
from headrace.cli.rollout.command import rollout
from headrace.cli.status import status
from headrace.cli.train import train
from headrace.cli.up import up
from headrace.cli.writing import event, products

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Search and recommendation that learn while they serve.\n\n"
    "Start with `headrace up` in one terminal; then, in another, `headrace replay simulated-shop`, "
    "`headrace recommend --visitor v1` and `headrace status`.",
)


@told
def version(as_json: Json = False) -> None:
    """Print the version of Headrace.

    \b
    Example:
      headrace version
    """
    from headrace import __version__

    typer.echo(f'{{"version": "{__version__}"}}' if as_json else f"headrace {__version__}")


_SUITE, _SHOP, _MODELS = "Suite", "Shop", "Models"

app.command(rich_help_panel=_SUITE)(up)
app.command(rich_help_panel=_SUITE)(status)
app.command(rich_help_panel=_SUITE)(doctor)
app.command(rich_help_panel=_SUITE)(backup)
app.command(rich_help_panel=_SUITE)(restore)
app.command(rich_help_panel=_SUITE)(move)
app.command(rich_help_panel=_SUITE)(demo)
app.add_typer(auth, name="auth", rich_help_panel=_SUITE)
app.command(rich_help_panel=_SHOP)(replay)
app.command(rich_help_panel=_SHOP)(event)
app.add_typer(products, name="product", rich_help_panel=_SHOP)
app.command(rich_help_panel=_SHOP)(cleaning)
app.add_typer(imports, name="import", rich_help_panel=_SHOP)
app.command(rich_help_panel=_SHOP)(mapping)
app.add_typer(letters, name="deadletters", rich_help_panel=_SHOP)
app.add_typer(features, name="features", rich_help_panel=_SHOP)
app.add_typer(facts, name="facts", rich_help_panel=_SHOP)
app.command(rich_help_panel=_SHOP)(forget)
app.add_typer(identity, name="identity", rich_help_panel=_SHOP)
app.command(rich_help_panel=_SHOP)(recommend)
app.command(rich_help_panel=_SHOP)(search)
app.command(rich_help_panel=_MODELS)(releases)
app.add_typer(rollout, name="rollout", rich_help_panel=_MODELS)
app.command(rich_help_panel=_MODELS)(train)
app.command(rich_help_panel=_SUITE)(version)


def main() -> None:
    """The console script."""
    app(prog_name="headrace")


if __name__ == "__main__":
    main()
