"""Every command, flag, setting, variable and make target that the documentation names exists, and none is hidden."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from app.cli.main import parser
from app.settings.tree import leaves, sections
from tests.docs.pages import ROOT, Page, page, pages

PAGES = pages()
PLACEHOLDERS = {"…", "..."}


def commands(of: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command, as its words, with its flags."""
    nested = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield words, {flag for action in of._actions for flag in action.option_strings}
    for action in nested:
        for name, each in action.choices.items():
            yield from commands(each, (*words, name))


COMMANDS = dict(commands(parser()))
FLAGS = set().union(*COMMANDS.values())


def lines(each: Page) -> Iterator[str]:
    """The lines of its shell blocks, continued ones joined."""
    for block in each.blocks("sh"):
        yield from block.replace("\\\n", " ").splitlines()


def invocations(each: Page) -> Iterator[list[str]]:
    """The arguments of every `shepherd …` in a shell block or in inline code."""
    for text in (*lines(each), *each.spans()):
        found = re.match(r"(?:\$ )?(?:\.venv/bin/)?shepherd (.+)", text.strip())
        if found:
            yield shlex.split(re.split(r" [|<>&#]", found[1])[0], comments=True)


def command_of(words: list[str]) -> tuple[str, ...]:
    """The command that `words` call: `serve` where none is named."""
    if words[0].startswith("-"):
        return ("serve",)
    two = tuple(words[:2])
    return two if two in COMMANDS else two[:1]


@pytest.mark.parametrize("each", PAGES, ids=repr)
def test_named_commands_and_their_flags_exist(each: Page) -> None:
    for words in invocations(each):
        if words[0] in {"-h", "--help", "--version"}:
            continue
        command = command_of(words)
        assert command in COMMANDS, f"shepherd {' '.join(words)}"
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= COMMANDS[command], f"shepherd {' '.join(words)}: {flags - COMMANDS[command]}"


@pytest.mark.parametrize("each", PAGES, ids=repr)
def test_whole_command_lines_parse(each: Page) -> None:
    for line in lines(each):
        found = re.match(r"(?:\.venv/bin/)?shepherd (.+)", line)
        if found and not PLACEHOLDERS & set(line.split()):
            words = shlex.split(re.split(r" [|<>&#]", found[1])[0], comments=True)
            parser().parse_args(["serve", *words] if words[0].startswith("-") else words)


@pytest.mark.parametrize("each", PAGES, ids=repr)
def test_flags_in_the_prose_exist(each: Page) -> None:
    named = {span.split()[0].partition("=")[0] for span in each.spans() if span.startswith("--")}
    assert named <= FLAGS


@pytest.mark.parametrize("each", PAGES, ids=repr)
def test_settings_and_variables_exist(each: Page) -> None:
    paths = {leaf.path for leaf in leaves()}
    variables = {leaf.variable for leaf in leaves()}
    named = {span for span in each.spans() if re.fullmatch(rf"({'|'.join(sections())})\.[a-z][a-z0-9_]*", span)}
    assert named - {span for span in named if span.endswith((".py", ".md"))} <= paths
    written = set(re.findall(r"SHEPHERD__[A-Z0-9_]+[A-Z0-9]", each.text)) - {"SHEPHERD__SECTION__NAME"}
    assert written <= variables


@pytest.mark.parametrize("each", PAGES, ids=repr)
def test_make_targets_exist(each: Page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {found[1] for text in (*lines(each), *each.spans()) if (found := re.match(r"make ([a-z-]+)", text))}
    assert named <= targets


def test_every_command_is_documented() -> None:
    told = {command_of(words) for each in PAGES for words in invocations(each)}
    assert set(COMMANDS) <= told


def test_every_flag_is_documented() -> None:
    reference = page("docs/configuration.md").text
    simulator = page("docs/simulator.md").text
    for command, flags in COMMANDS.items():
        text = simulator if command == ("simulate",) else reference
        for flag in flags - {"-h", "--help"}:
            positive = re.sub(r"^--no-", "--", flag)
            assert positive in text or any(positive in each.text for each in PAGES), f"{' '.join(command)} {flag}"
