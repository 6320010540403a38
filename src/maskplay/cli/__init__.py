"""The command line: parses arguments, calls what Python users call, and turns every user's fault into one line.

Exit codes: 0 fine; 2 the input or the options cannot be used (one line on stderr says why); 130 Ctrl-C. Anything else
is a bug of ours and keeps its traceback.
"""

import io
import os
import sys

import typer

from maskplay._backend import is_out_of_memory
from maskplay.cli import checkpoint, fit, generate, predict, pretrain, show, words
from maskplay.errors import UserError

INTERRUPTED = 130

app = typer.Typer(
    name="maskplay",
    help="Transformers of language in Keras 3, from BERT to GAU-α, GPT to LLaMA, and T5: look into checkpoints, "
    "convert them, pretrain and train them, use them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(fit.app, name="fit")
app.add_typer(show.app, name="show")
app.add_typer(words.app, name="words")
for command in (
    pretrain.pretrain,
    predict.predict,
    predict.evaluate,
    generate.generate,
    checkpoint.fill,
    checkpoint.inspect,
    checkpoint.convert,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"maskplay {fit.versions()['maskplay']}")
        raise typer.Exit()


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """What stands before a command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: what follows `maskplay`; None = those of the process.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # UTF-8 wherever we are, and what even that cannot say, escaped
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        code = app(arguments, prog_name="maskplay", standalone_mode=False)
        if code == INTERRUPTED:  # Typer's answer to Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except UserError as error:
        code = _say(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        sys.exit(INTERRUPTED)  # here, where no further interruption comes (see maskplay_command)
    except SystemExit as error:  # Click leaves this way, with 1, when nobody reads on
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _say(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}")
    except Exception as error:
        message = getattr(error, "format_message", None)  # Typer's own errors: a wrong option, a missing command
        if message is not None:
            code = _say(f"{message()} (--help tells more)")
        elif is_out_of_memory(error):
            advice = "take smaller batches, shorter texts or a smaller model"
            code = _say(f"not enough memory for this ({error!s:.120}); {advice}")
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str) -> int:
    print(f"maskplay: {' '.join(text.split())}", file=sys.stderr)
    return 2
