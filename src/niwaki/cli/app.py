"""The application: its subcommands, and how an error reaches the user."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from niwaki.cli.console import messages
from niwaki.cli.demo import demo
from niwaki.cli.evaluate import evaluate
from niwaki.cli.export import export
from niwaki.cli.finetune import finetune
from niwaki.cli.inspect import inspect
from niwaki.cli.prune import prune
from niwaki.cli.report import report
from niwaki.cli.reproduce import reproduce
from niwaki.cli.score import score_command
from niwaki.cli.sensitivity import sensitivity_command
from niwaki.cli.train import train
from niwaki.core.errors import NiwakiError

app = typer.Typer(
    help="Structured pruning for PyTorch: smaller, repaired, checked, ordinary modules.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command("score")(score_command)
app.command()(prune)
app.command()(finetune)
app.command("sensitivity")(sensitivity_command)
app.command("eval")(evaluate)
app.command()(inspect)
app.command()(export)
app.command()(report)
app.command()(reproduce)
app.command()(demo)


def main() -> None:
    """Run the command line; a niwaki error is one line on standard error, without a traceback. An
    interrupt exits with 130.
    """
    try:
        app()
    except NiwakiError as error:
        messages.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
