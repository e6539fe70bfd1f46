"""Script files: what they look like, how they are run, and how they are written anew.

A script is comments (``#``), and *blocks*: one command a line, then ``----``, then what the commands showed, up to the
next blank line. A world executes the commands; this module only reads, compares and writes.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

RULE = "----"
NOTHING = "(nothing)"


class World(Protocol):
    """What executes the commands of a script."""

    def do(self, line: str) -> list[str]:
        """One command; what it showed."""
        ...

    def left(self) -> list[str]:
        """At the end of a block: what its commands have left behind."""
        ...


class ScriptError(Exception):
    """A script that cannot be read, or a command that cannot be done."""


@dataclass
class Block:
    """Commands with what they showed. ``before`` holds the comments and blank lines above."""

    line: int
    before: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)


def parse(text: str) -> tuple[list[Block], list[str]]:
    """The blocks of a script, and the comments after the last. Raises ScriptError."""
    blocks: list[Block] = []
    block = Block(1)
    state = "before"
    for number, line in enumerate(text.splitlines(), 1):
        if state == "output":
            if line.strip() == RULE:
                raise ScriptError(f"line {number}: a blank line is missing above the commands of this {RULE}")
            if line.strip() and not line.startswith("#"):
                block.output.append(line)
                continue
            blocks.append(block)
            block, state = Block(number), "before"
        if line.strip() == RULE:
            if not block.commands:
                raise ScriptError(f"line {number}: {RULE} without a command above it")
            state = "output"
        elif not line.strip() or line.startswith("#"):
            if block.commands:
                raise ScriptError(f"line {number}: {RULE} is missing below the commands above")
            block.before.append(line)
        else:
            block.line = block.line if block.commands else number
            block.commands.append(line.strip())
    if state == "output":
        blocks.append(block)
        block = Block(0)
    elif block.commands:
        raise ScriptError(f"line {block.line}: {RULE} is missing below these commands")
    return blocks, block.before


def render(blocks: list[Block], after: list[str]) -> str:
    """The text of a script."""
    lines: list[str] = []
    for block in blocks:
        lines += [*block.before, *block.commands, RULE, *block.output]
    return "\n".join([*lines, *after]).rstrip("\n") + "\n"


def run(path: Path, world: World, *, rewrite: bool) -> str:
    """Runs a script. Returns what differs from it, readable; empty where all is as it says. Raises ScriptError."""
    text = path.read_text()
    blocks, after = parse(text)
    for block in blocks:
        output: list[str] = []
        for command in block.commands:
            try:
                output += world.do(command)
            except Exception as error:
                error.add_note(f"{path.name}, line {block.line}: {command}")
                for line in output[-40:]:
                    error.add_note(f"    {line}")
                raise
        block.output = output + world.left() or [NOTHING]
    told = render(blocks, after)
    if told == text:
        return ""
    if rewrite:
        path.write_text(told)
        return ""
    diff = difflib.unified_diff(
        text.splitlines(),
        told.splitlines(),
        f"{path.name} (as it stands)",
        f"{path.name} (as it happened)",
        "",
        "",
        6,
    )
    return (
        "\n".join(diff)
        + "\n\nIf what happened is right, set PAXOS_RSM_REWRITE_SCRIPTS=1, and read the change."
    )
