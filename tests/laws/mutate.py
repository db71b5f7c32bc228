"""Breaks the machine on purpose and sees that its laws notice: `make mutate`.

Each mutant is one wrong line in a copy of the machine, made in a folder of its own; the working tree is never touched.
A mutant must fail `test_machine_laws.py`. One that survives is a hole in the laws, and the exit status says so.
`python tests/laws/mutate.py WORD…` runs only the mutants whose description contains one of the words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Path("app/responses/machine.py")
COPIED = ("app/__init__.py", "app/turn", "app/responses", "tests/laws/conftest.py", "tests/laws/test_machine_laws.py")
LAWS = "tests/laws/test_machine_laws.py"
NO_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:xdist")
PATIENCE_SECS = 120
OUTCOMES = {0: "SURVIVED", 1: "killed"}


class Mutant(NamedTuple):
    """What is wrong with it, and the text that makes it so."""

    wrong: str
    old: str
    new: str


MUTANTS = (
    # ── budget ──
    Mutant("calls cost nothing", "self._budget -= self._turn.paid[call_id]", "self._budget -= 0"),
    Mutant("one call too many", "not ours or self._budget > 0", "not ours or self._budget >= 0"),
    Mutant("client calls cost too", "= 1 if ours and self._budget > 0", "= 1 if self._budget > 0"),
    Mutant("each delta pays", "if call_id not in self._turn.admitted:", "if call_id is not None:"),
    Mutant(
        "deltas of dropped calls are shown",
        "if not self._admit(event.call_id, event.name):",
        "if not self._admit(event.call_id, event.name) and False:",
    ),
    Mutant(
        "dropped calls are made",
        "if not self._admit(item.call_id, item.name):",
        "if not self._admit(item.call_id, item.name) and False:",
    ),
    Mutant("bad calls are refunded", "error = ToolError(", "self._budget += 1\n            error = ToolError("),
    Mutant(
        "the model is not told that the budget is spent",
        "if self._budget == 0 and not request.tools and self._tools:",
        "if False:",
    ),
    Mutant(
        "client tools cannot be called once the budget is spent",
        "if self._budget == 0 and not request.tools and self._tools:",
        "if self._budget == 0 and self._tools:",
    ),
    # ── calls and results ──
    Mutant(
        "results in order of arrival",
        "[self._turn.results[call.call_id] for call in calls if call.server_label is not None]",
        "list(self._turn.results.values())",
    ),
    Mutant(
        "the next turn does not wait for the last result",
        "*([] if self._turn.awaited else",
        "*([] if len(self._turn.awaited) > 1 else",
    ),
    Mutant("a result nobody asked for is taken", "if result.call_id not in self._turn.awaited:", "if False:"),
    Mutant("a call may end twice", "if any(call.call_id == item.call_id", "if any(call is item"),
    Mutant("a client call stops ours", "if not ours:", "if len(ours) < len(self._turn.calls) or not ours:"),
    Mutant(
        "the loop goes on over a client call",
        "if any(call.server_label is None for call in calls):",
        "if all(call.server_label is None for call in calls):",
    ),
    Mutant("any JSON is an object", "Decoder(dict[str, msgspec.Raw])", "Decoder(msgspec.Raw)"),
    Mutant("no arguments are no object", 'item.arguments.strip() or "{}"', "item.arguments"),
    Mutant("the server is asked by the model's name", "call.tool or call.name", "call.name"),
    Mutant("an execution is not announced", "return [Emit(ask), ask]\n\n", "return [ask]\n\n"),
    Mutant(
        "deltas say no server",
        "structs.replace(event, server_label=owner.server_label, tool=owner.tool)",
        "event",
    ),
    Mutant("calls of one turn haunt the next", "Phase.SAMPLING, _Turn()", "Phase.SAMPLING, self._turn"),
    # ── context, usage, sampling ──
    Mutant(
        "what the model said is forgotten",
        "self._said.append(item)\n            return [Emit(event)]",
        "return [Emit(event)]",
    ),
    Mutant("what the request began with is forgotten", "(*request.items, *self._said)", "tuple(self._said)"),
    Mutant("usage of the last turn only", "self.usage += event.usage", "self.usage = event.usage"),
    Mutant("max_output_tokens bounds each turn", "max_output_tokens - self.usage.output_tokens", "max_output_tokens"),
    Mutant("a turn of zero tokens", "if left <= 0:", "if left < 0:"),
    Mutant("a forced choice is kept", "if self._turns == 1 or", "if self._turns >= 1 or"),
    Mutant("a choice of none is lifted", ' or request.tool_choice == "none" else', " else"),
    # ── listing ──
    Mutant(
        "known servers are asked again",
        "for label in event.servers if label not in known}",
        "for label in event.servers}",
    ),
    Mutant(
        "tools in order of arrival",
        "{label: known.get(label, ()) for label in event.servers}",
        "{label: known[label] for label in event.servers if label in known}",
    ),
    Mutant(
        "the first turn does not wait for the last listing", "*([] if self._unlisted", "*([] if len(self._unlisted) > 1"
    ),
    Mutant("a listing nobody asked for is taken", "if event.server_label not in self._unlisted:", "if False:"),
    # ── ends ──
    Mutant("a cut turn goes on", 'if event.reason == "length":', 'if event.reason == "lengthy":'),
    Mutant("the end is not the end", "self.phase, self.finish = Phase.DONE,", "self.phase, self.finish = self.phase,"),
    Mutant("what is over can be cancelled", "Phase.DONE: {},", "Phase.DONE: {**_ALWAYS},"),
    Mutant(
        "calls cannot be cancelled",
        "{ToolReturned: ResponseMachine.returned, Resumed: ResponseMachine.resumed, **_ALWAYS}",
        "{ToolReturned: ResponseMachine.returned, Resumed: ResponseMachine.resumed}",
    ),
    Mutant(
        "a failed turn is a cancelled one",
        'return self._finish("failed", failure=event.failure)\n\n    # ── CALLING',
        'return self._finish("cancelled")\n\n    # ── CALLING',
    ),
)


def plant(mutant: Mutant | None, folder: Path) -> None:
    """Copy what the laws need to `folder`, with the mutant in it."""
    for name in COPIED:
        source, copy = ROOT / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    if mutant is not None:
        text = (folder / MACHINE).read_text("utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(
                f"{mutant.wrong!r} no longer fits {MACHINE}: its text is there {text.count(mutant.old)} times"
            )
        (folder / MACHINE).write_text(text.replace(mutant.old, mutant.new), "utf-8")


def outcome(mutant: Mutant | None) -> str:
    """What the laws say of the machine with this mutant, or of the machine itself."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        plant(mutant, Path(name))
        try:
            ran = python(Path(name), "-m", "pytest", "-q", "-x", "--tb=no", *NO_PLUGINS, LAWS)
        except subprocess.TimeoutExpired:
            return "NOT TRIED: the laws did not come to an end"
        return OUTCOMES.get(ran.returncode, f"NOT TRIED: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run python in `folder`, where `app` is the copy that lies there."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHEPHERD_LAWS": "mutate",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECS,
    )


def on_trial() -> str:
    """Where the machine comes from that a copy's laws judge, relative to the copy."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        plant(None, Path(name))
        where = "import app.responses.machine as machine; print(machine.__file__)"
        return python(Path(name), "-c", where).stdout.strip().removeprefix(f"{name}/")


def main(words: list[str]) -> int:
    """Run the mutants, report each; 0 when all were killed."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.wrong for word in words)]
    begun = time.monotonic()
    if on_trial() != str(MACHINE):
        sys.stdout.write(f"the copies are not what is tested: {on_trial()}\n")
        return 1
    sound = outcome(None)
    if sound != "SURVIVED":
        sys.stdout.write(f"the laws do not hold for the machine as it is: {sound}\n")
        return 1
    killed = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for mutant, result in zip(chosen, pool.map(outcome, chosen), strict=True):
            killed += result == "killed"
            sys.stdout.write(f"{result:9} {mutant.wrong}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{killed} of {len(chosen)} mutants killed in {time.monotonic() - begun:.0f} s\n")
    return 0 if chosen and killed == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
