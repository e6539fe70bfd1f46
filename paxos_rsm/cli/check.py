"""``paxos-rsm check history``: was what clients saw linearizable? (``check perf`` is in perf.py.)

The work is that of `paxos_rsm.checker`; here its verdict becomes words, a page to look at, and an exit code. An
undecided check has a code of its own, so that no script takes it for a pass.
"""

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.text import Text

from paxos_rsm.cli.failures import EXIT_BAD_USAGE, EXIT_ERROR, Failure
from paxos_rsm.cli.options import DurationType, SectionCommand, global_options
from paxos_rsm.cli.output import print_json, print_table
from paxos_rsm.cli.perf import perf
from paxos_rsm.errors import HistoryError

if TYPE_CHECKING:
    from paxos_rsm.checker import Model, Operation, Result

__all__ = ["COMMANDS", "EXIT_UNDECIDED", "check", "history", "load_model"]

EXIT_UNDECIDED = 4
BUILT_IN = ("register", "cas", "kv", "lock", "counter")
PREFIX_SHOWN = 10

GROUP_EPILOG = """\
\b
Examples:
  paxos-rsm check history run.jsonl --model kv
  paxos-rsm check history chaos-7/history.jsonl --html run.html
  paxos-rsm check perf --load m
"""

EPILOG = """\
\b
Examples:
  paxos-rsm check history run.jsonl --model register
  paxos-rsm check history chaos-7/history.jsonl --timeout 5m --html run.html
  paxos-rsm check history run.jsonl --model my_models:Queue

FILE has one JSON object a line (docs/LINEARIZABILITY.md tells the form); - is standard input.

Exit codes: 0 linearizable; 1 a violation; 4 not decided within the time, or nothing to decide, which is no pass;
128 bad usage, or a history that cannot be read.
"""

STYLES = {"linearizable": "bold green", "violation": "bold red", "unknown": "bold yellow"}


DEFAULT_MODEL = "revisions"
"""What chaos records, and whatever else writes to a store with revisions."""


class BadHistory(Failure):
    """The history or the model cannot be used."""

    exit_code = EXIT_BAD_USAGE


class DrawingPath(click.Path):
    """A file to be written when all is done: that its directory is there is seen to before."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = os.fsdecode(super().convert(value, param, ctx))
        directory = Path(path).parent
        if not directory.is_dir():
            self.fail(f"there is no directory {str(directory)!r} to write {Path(path).name!r} to", param, ctx)
        if not os.access(directory, os.W_OK) and not os.path.exists(path):
            self.fail(f"the directory {str(directory)!r} cannot be written to", param, ctx)
        return path


def load_model(name: str) -> "Model":
    """An instance of a built-in model, or of ``module:Class``. Raises click.BadParameter where there is none."""
    from paxos_rsm.checker import models

    if name in models.MODELS:
        return models.MODELS[name]()
    module_name, separator, class_name = name.partition(":")
    if not separator:
        raise click.BadParameter(
            f"{name!r} is no model: there are {', '.join(BUILT_IN)}, revisions, and your own as module:Class"
        )
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)  # where the user is, as with `python -m`
    try:
        made = getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:  # a user's module may raise anything
        raise click.BadParameter(f"{name}: {type(error).__name__}: {error}") from error
    for method in ("init", "step", "key_of", "prepare"):
        if not callable(getattr(made, method, None)):
            raise click.BadParameter(
                f"{name} has no {method}(): make it a subclass of paxos_rsm.checker.Model"
            )
    model: Model = made
    return model


@click.group("check", epilog=GROUP_EPILOG)
def check() -> None:
    """Check what was recorded, or how fast a cluster is."""


@check.command("history", cls=SectionCommand, epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--model",
    "model_name",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="MODEL",
    help="What the object is meant to do: revisions (a store with revisions, its transactions and ranges included; what"
    " chaos records), register, cas, kv, lock, counter, or a class of your own as module:Class.",
)
@click.option(
    "--timeout", "timeout_s", type=DurationType(), default="60s", show_default=True, help="When to give up."
)
@click.option("--html", "html_path", type=DrawingPath(), help="Draw it as a page there.")
@click.option("--svg", "svg_path", type=DrawingPath(), help="Draw it as an SVG there.")
@click.option("--key", help="Draw this key; the one that failed where none is given.")
@click.option(
    "--incomplete",
    is_flag=True,
    help="With --model revisions: others wrote too, so a revision that nobody explains is no violation.",
)
@click.option(
    "-w", "--write-out", type=click.Choice(["simple", "json"]), default="simple", help="How to print."
)
@global_options(connects=False)
@click.pass_context
def history(
    ctx: click.Context,
    file: str,
    model_name: str,
    timeout_s: float,
    html_path: str | None,
    svg_path: str | None,
    key: str | None,
    incomplete: bool,
    write_out: str,
) -> None:
    """Check whether the history in FILE is linearizable."""
    from paxos_rsm import checker

    model = None if model_name == "revisions" else load_model(model_name)
    if incomplete and model is not None:
        raise click.UsageError("--incomplete goes with --model revisions", ctx)
    try:
        operations = checker.read_history(sys.stdin if file == "-" else file)
        drawn = _key_named(operations, key)
        result = _verdict(operations, model, timeout_s, complete=not incomplete)
        title = "History" if file == "-" else Path(file).name
        if html_path:
            page = checker.draw_html(operations, result, model=model, key=drawn, title=title)
            Path(html_path).write_text(page, encoding="utf-8")
        if svg_path:
            drawing = checker.draw_svg(operations, result, model=model, key=drawn)
            Path(svg_path).write_text(drawing, encoding="utf-8")
    except HistoryError as error:
        defaulted = ctx.get_parameter_source("model_name") is ParameterSource.DEFAULT
        hint = f" (no --model was given, so that of {DEFAULT_MODEL} was taken)" if defaulted else ""
        raise BadHistory(f"{error}{hint}") from None
    if write_out == "json":
        print_json(_as_json(result))
    else:
        _show(result, model or checker.Model())
        for path in filter(None, (html_path, svg_path)):
            click.echo(f"drawn to {path}")
    verdict = result.verdict
    if verdict is not checker.Verdict.LINEARIZABLE:
        ctx.exit(EXIT_ERROR if verdict is checker.Verdict.VIOLATION else EXIT_UNDECIDED)


def _verdict(
    operations: "list[Operation]", model: "Model | None", timeout_s: float, *, complete: bool
) -> "Result":
    """What the checker says; ``model`` None: the store with revisions. Where there was nothing to check, unknown."""
    from paxos_rsm import checker

    if model is None:
        result = checker.check_revisions(operations, complete=complete, timeout_s=timeout_s)
    else:
        result = checker.check(operations, model, timeout_s=timeout_s)
    if result.verdict is not checker.Verdict.LINEARIZABLE or any(
        each.status != "fail" for each in operations
    ):
        return result
    empty = "every operation of the history failed" if operations else "the history is empty"
    return replace(result, verdict=checker.Verdict.UNKNOWN, reason=f"{empty}: nothing was shown")


def _key_named(operations: "list[Operation]", name: str | None) -> Any:
    """The key of the history that is written as ``name``."""
    if name is None:
        return None
    for op in operations:
        if str(op.key) == name:
            return op.key
    raise click.BadParameter(f"no operation is on the key {name!r}", param_hint="--key")


def _show(result: "Result", model: "Model") -> None:
    console = Console(markup=False, highlight=False, soft_wrap=True)
    verdict = result.verdict.value
    console.print(Text.assemble((verdict, STYLES[verdict]), ": ", result.reason))
    console.print(
        f"{result.operations} operations, {result.partitions} keys, {result.steps} steps, {result.elapsed_s:.2f} s",
        style="dim",
    )
    if not result.unplaced:
        return
    first = max(0, len(result.prefix) - PREFIX_SHOWN)
    rows = [_row(str(number + 1), op, model) for number, op in enumerate(result.prefix) if number >= first]
    rows += [_row("✗", op, model) for op in result.unplaced]
    console.print(
        f"the end of the longest order found ({len(result.prefix)} operations), and what fits nowhere:"
    )
    print_table(("place", "process", "operation", "call", "return"), rows, right=("place", "call", "return"))


def _row(place: str, op: "Operation", model: "Model") -> list[str | Text]:
    style = "bold red" if place == "✗" else ""
    returned = "" if op.return_ is None else f"{op.return_:g}"
    cells = (place, str(op.process), model.describe(op), f"{op.call:g}", returned)
    return [Text(cell, style=style) for cell in cells]


def _as_json(result: "Result") -> dict[str, Any]:
    from paxos_rsm.checker.history import operation_to_json

    return {
        "verdict": result.verdict.value,
        "reason": result.reason,
        "operations": result.operations,
        "partitions": result.partitions,
        "steps": result.steps,
        "elapsed_s": result.elapsed_s,
        "key": None if result.key is None else str(result.key),
        "unplaced": [operation_to_json(op) for op in result.unplaced],
        "prefix": [operation_to_json(op) for op in result.prefix],
        "states": list(result.states),
        "undecided": [str(key) for key in result.undecided],
    }


check.add_command(perf)

COMMANDS = {"check": check}
