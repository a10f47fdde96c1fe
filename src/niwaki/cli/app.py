"""The application: what is said to `niwaki` itself, and how an error reaches the user."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from niwaki.cli.commands import Commands
from niwaki.cli.voice import to_front, voice
from niwaki.core.errors import NiwakiError
from niwaki.core.version import __version__

app = typer.Typer(
    cls=Commands,
    help="Structured pruning for PyTorch: smaller, repaired, checked, ordinary modules.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"niwaki {__version__}")
        raise typer.Exit


@app.callback()
def niwaki(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="print only results and errors")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="say what is being done, and where an error came from"
        ),
    ] = False,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="a package of yours whose code a folder may name; may be repeated"),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Structured pruning for PyTorch: smaller, repaired, checked, ordinary modules.

    --quiet, --verbose and --trust may stand after the subcommand too.
    """
    if quiet and verbose:
        raise NiwakiError("--quiet and --verbose say the opposite; give one of them")
    voice.begin(quiet, verbose, trust or ())


def main() -> None:
    """Run the command line; an error is one line on standard error, without a traceback. An
    interrupt exits with 130.
    """
    try:
        code = app(args=to_front(sys.argv[1:]), standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted; nothing half-written is left")
        sys.exit(130)
    except NiwakiError as error:
        if voice.verbose:
            traceback.print_exc()
        _complain(str(error))
        sys.exit(1)
    except MemoryError:
        _complain("there is not enough memory for this; try a smaller batch")
        sys.exit(1)
    except Exception as error:
        sys.exit(_misused(error))


def _misused(error: Exception) -> int:
    """Say what is wrong with the words of a call; the exit code. Any other error goes on."""
    if not hasattr(error, "format_message"):  # typer's errors of usage have it, in all versions
        raise error
    if "NoArgsIsHelp" in type(error).__name__:
        error.show()  # type: ignore[attr-defined]  # it prints the help
    else:
        where = getattr(getattr(error, "ctx", None), "command_path", "niwaki")
        text = " ".join(str(error.format_message()).split()).rstrip(".")
        _complain(f"{text} (see {where} --help)")
    return int(getattr(error, "exit_code", 2))


def _complain(text: str) -> None:
    """One line on standard error."""
    line = " ".join(text.split())
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\033[1;31merror:\033[0m {line}"
    else:
        line = f"error: {line}"
    print(line, file=sys.stderr)
