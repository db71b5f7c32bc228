"""Breaks the machine on purpose and sees that its laws notice: `make mutate`.

Each mutant is one wrong line in a copy of the machine or of what it decides with, made in a folder of its own; the
working tree is never touched. A mutant must fail `test_machine_laws.py`, or the machine's unit tests where it says so.
One that survives is a hole in the laws, and the exit status says so.
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
COURSE = Path("app/responses/course.py")
CALLING = Path("app/responses/calling.py")
CALLS = Path("app/responses/calls.py")
TOOLSET = Path("app/responses/toolset.py")
WINDOW = Path("app/responses/window.py")
LISTING = Path("app/responses/listing.py")
TESTS = {"laws": "tests/laws/test_machine_laws.py", "unit": "tests/unit/responses/test_machine.py"}
COPIED = ("app/__init__.py", "app/turn", "app/responses", "tests/laws/conftest.py", *TESTS.values())
NO_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:xdist")
PATIENCE_SECS = 120
OUTCOMES = {0: "SURVIVED", 1: "killed"}


class Mutant(NamedTuple):
    """What is wrong with it, and the text that makes it so. `kills` says whose work it is to notice: the laws', or the
    unit tests' where a rule is about histories the laws do not reach."""

    wrong: str
    old: str
    new: str
    file: Path = MACHINE
    kills: str = "laws"


MUTANTS = (
    # ── budget ──
    Mutant("calls cost nothing", "self.left -= 1", "self.left -= 0", CALLS),
    Mutant("one call too many", "if self.left <= 0:", "if self.left < 0:", CALLS),
    Mutant("client calls cost too", "if is_ours(owner) and not self._pay():", "if not self._pay():", CALLS),
    Mutant("each delta pays", "if call_id not in self._fates:", "if call_id is not None:", CALLS),
    Mutant(
        "deltas of dropped calls are shown",
        'if self._turn.hear(event.call_id, owner) != "kept" or not is_shown_early(owner):',
        "if not is_shown_early(owner):",
    ),
    Mutant("dropped calls are made", 'if fate == "dropped" or (why', "if (why"),
    Mutant(
        "bad calls are refunded",
        "            return self.returned(ToolReturned(refusal(",
        "            self._budget.left += 1\n            return self.returned(ToolReturned(refusal(",
        CALLING,
    ),
    Mutant("the model is not told that the budget is spent", "if broke and self._shown and", "if False and", TOOLSET),
    Mutant(
        "client tools cannot be called once the budget is spent",
        "if broke and self._shown and all(is_ours(tool) for tool in self._shown):",
        "if broke and self._shown:",
        TOOLSET,
    ),
    # ── calls and results ──
    Mutant(
        "results in order of arrival",
        "[self.results[call.call_id] for call in self.calls if call.call_id in self.results]",
        "list(self.results.values())",
        CALLS,
    ),
    Mutant(
        "the next turn does not wait for the last result",
        "*([] if self._turn.awaited else",
        "*([] if len(self._turn.awaited) > 1 else",
        CALLING,
    ),
    Mutant("a result nobody asked for is taken", "if call_id not in self._turn.awaited:", "if False:", CALLING),
    Mutant("a call may end twice", "if self._turn.ended(said.call_id):", "if False:"),
    Mutant("a client call stops ours", "if not ours:", "if len(ours) < len(self._turn.calls) or not ours:", CALLING),
    Mutant(
        "the loop goes on over a client call",
        'self._finish("completed") if self._turn.open else self._sample()',
        "self._sample()",
        CALLING,
    ),
    Mutant("any JSON is an object", "Decoder(dict[str, msgspec.Raw])", "Decoder(msgspec.Raw)", CALLS),
    Mutant("no arguments are no object", 'said.arguments.strip() or "{}"', "said.arguments", CALLS),
    Mutant("the server is asked by the model's name", "call.tool or call.name\n", "call.name\n", CALLING),
    Mutant(
        "an execution is not announced",
        "ask = CallTool(call.call_id, label, tool, call.arguments)\n        return [Emit(ask), ask]",
        "ask = CallTool(call.call_id, label, tool, call.arguments)\n        return [ask]",
        CALLING,
    ),
    Mutant("deltas say no server", "return [Emit(owned(event, owner))]", "return [Emit(event)]"),
    Mutant("what a call is shown as is forgotten", '"kind": owner.kind, ', "", CALLS),
    Mutant("the namespace is forgotten", ', "namespace": owner.namespace', "", CALLS),
    Mutant(
        "calls of one turn haunt the next",
        "self.phase, self._turn = Phase.SAMPLING, Turn(Rules.of(start, self.turns), self._budget)",
        "self.phase = Phase.SAMPLING",
        COURSE,
    ),
    # ── approvals ──
    Mutant(
        "calls are made without asking",
        'if owner is not None and owner.approval == "ask" and is_object(call.arguments):',
        "if False:",
    ),
    Mutant("a call is shown before it was approved", 'and tool.approval == "never")', ")", CALLS),
    Mutant(
        "people are asked about nonsense",
        'owner.approval == "ask" and is_object(call.arguments):',
        'owner.approval == "ask":',
    ),
    Mutant(
        "a call that waits does not end the response",
        "return any(call.call_id not in self.results for call in self.calls)",
        "return any(call.call_id not in self.results and call.server_label is None for call in self.calls)",
        CALLS,
    ),
    Mutant("nobody is told of the request", "return [*requests, *(self", "return [*(self", CALLING),
    Mutant(
        "requests in order of arrival",
        "[self._requests[call.call_id] for call in self.calls if call.call_id in self._requests]",
        "list(self._requests.values())",
        CALLS,
        kills="unit",
    ),
    Mutant("an approval nobody asked for is taken", "if event.call_id not in self._turn.asked:", "if False:", CALLING),
    Mutant("approved calls are free", "        self._budget.pay()\n", "", CALLING),
    Mutant(
        "the model is asked before the approved calls are made",
        "self._make_first() if start.approved or start.answered else",
        "",
    ),
    Mutant("an approved call is made without saying so", "approved.arguments, word)", "approved.arguments)", CALLS),
    Mutant("other arguments than the approved are used", "        approved.arguments,\n", '        "{}",\n', CALLS),
    # ── calls that ask the user ──
    Mutant("what waits for approval may ask the user", "if event.call_id in self._turn.asked:", "if False:", CALLING),
    Mutant("a call that asks does not end", "[Emit(Suspended(event.call_id))]", "[]", CALLING),
    Mutant("answers do not reach the call", "structs.replace(ask, reply=answered.reply)", "ask", CALLS),
    Mutant(
        "what was approved is asked about again", "answered.arguments, answered.approved)", "answered.arguments)", CALLS
    ),
    Mutant(
        "a call does not say what it goes on from",
        "        elicitation_id=answered.reply.elicitation_id,\n",
        "",
        CALLS,
    ),
    # ── what may be called ──
    Mutant("a choice of none is no law", 'silent=start.request.tool_choice == "none"', "silent=False", CALLS),
    Mutant("calls are always parallel", "parallel=start.request.parallel_tool_calls", "parallel=True", CALLS),
    Mutant(
        "a dropped call takes the only place",
        'alone = rules.parallel or all(fate == "dropped" for fate in self._fates.values())',
        "alone = rules.parallel or not self._fates",
        CALLS,
        kills="unit",
    ),
    Mutant(
        "whatever is not allowed is called",
        "if rules.allowed is not None and (owner is None or not rules.allowed.allows(owner)):",
        "if False:",
        CALLS,
    ),
    Mutant("nobody's tools are allowed", "(owner is None or not rules", "(owner is not None and not rules", CALLS),
    Mutant("the choice of a server lasts", "(allowed.lasting or turn == 1)", "(True or turn == 1)", CALLS),
    Mutant("allowed tools do not last", "(allowed.lasting or turn == 1)", "(turn == 1)", CALLS),
    Mutant(
        "refusals are free",
        'return "refused" if self._pay() else "dropped"',
        'return "refused" if self._budget.left else "dropped"',
        CALLS,
    ),
    Mutant(
        "a call that makes no item is shown",
        "why = None if tool.kind in _SEARCHES else unfit(tool.parameters, given)",
        "why = None",
        CALLS,
        kills="unit",
    ),
    Mutant("misfits are free", "and not is_ours(call) and not self._pay():", "and False:", CALLS, kills="unit"),
    Mutant("the client sees what was refused", "        if why is not None:\n            return []\n", ""),
    # ── searching ──
    Mutant("what is found is not shown to the model", "        self._tools.load(found)\n", "", CALLING),
    Mutant("what is found comes first", "self._shown += [tool for", "self._shown[:0] = [tool for", TOOLSET),
    Mutant("deferred tools are shown", "if tool.name not in hidden | last]", "if tool.name not in last]", TOOLSET),
    Mutant(
        "what is shown is found again",
        "[tool for tool in self._every.values() if tool.name not in seen]",
        "list(self._every.values())",
        TOOLSET,
    ),
    # ── context, usage, sampling ──
    Mutant(
        "what the model said is forgotten",
        "        self._talk.add(item)\n",
        "",
    ),
    Mutant(
        "what the request began with is forgotten",
        "Conversation(self._tools.rename(start.request.items))",
        "Conversation()",
    ),
    Mutant("a strict answer is not looked at", "if fault is None else self", "if True else self", COURSE, kills="unit"),
    Mutant(
        "usage of the last turn only",
        "self.usage += event.usage",
        "self.usage = event.usage",
    ),
    Mutant("max_output_tokens bounds each turn", "max_output_tokens - used.output_tokens", "max_output_tokens", WINDOW),
    Mutant("a turn of zero tokens", "if left <= 0:", "if left < 0:", WINDOW),
    Mutant("a forced choice is kept", 'if asked == "none" or turn > 1:', 'if asked == "none":', TOOLSET),
    Mutant("a choice of none is lifted", 'return "none" if asked == "none" else "auto"', 'return "auto"', TOOLSET),
    Mutant(
        "the only tool that may be called is not named",
        "if len(candidates) == 1 else asked",
        "if False else asked",
        TOOLSET,
    ),
    # ── the window ──
    Mutant(
        "two summaries", "limit is not None and not self.compacted and", "limit is not None and", WINDOW, kills="unit"
    ),
    Mutant(
        "what people said is lost",
        "list(summarised(self._items, summary))",
        "list(self._items[:0])",
        WINDOW,
        kills="unit",
    ),
    Mutant("a cut answer is begun again", "and self._turn.quiet and", "and", kills="unit"),
    Mutant(
        "the summary is shown as it is written",
        "        return []\n\n    def summary_item",
        "        return [Emit(_event)]\n\n    def summary_item",
        kills="unit",
    ),
    # ── listing ──
    Mutant(
        "known servers are asked again",
        "{label for label in servers if label not in known}",
        "set(servers)",
        LISTING,
    ),
    Mutant(
        "tools in order of arrival",
        "{label: known.get(label, ()) for label in servers}",
        "{label: known[label] for label in servers if label in known}",
        LISTING,
    ),
    Mutant(
        "the first turn does not wait for the last listing",
        "*([] if listings.unlisted else",
        "*([] if len(listings.unlisted) > 1 else",
    ),
    Mutant("a listing nobody asked for is taken", "if event.server_label not in self.unlisted:", "if False:", LISTING),
    # ── ends ──
    Mutant("a cut turn goes on", '{"length": NO_TOKENS, ', "{", COURSE),
    Mutant(
        "the end is not the end",
        "self.phase, self.finish = Phase.DONE,",
        "self.phase, self.finish = self.phase,",
        COURSE,
    ),
    Mutant("what is over can be cancelled", "Phase.DONE: {},", "Phase.DONE: {**_ALWAYS},"),
    Mutant(
        "calls cannot be cancelled",
        "        Elicited: ResponseMachine.elicited,\n        **_ALWAYS,",
        "        Elicited: ResponseMachine.elicited,\n        Resumed: ResponseMachine.resumed,\n"
        "        Steered: ResponseMachine.steered,",
    ),
    # ── more to say ──
    Mutant("a call is torn apart", "is Phase.SAMPLING and not self._turn.calling", "is Phase.SAMPLING", kills="unit"),
    Mutant("who has more to say waits for the turn's end", "if cut else []", "if False else []"),
    Mutant("who has more to say waits for all turns", "if self._steered or turn is None:", "if turn is None:", COURSE),
    # ── beginning again ──
    Mutant("lost calls are made as if for the first time", "structs.replace(each, again=True) if", "each if", CALLS),
    Mutant(
        "answered calls are made again",
        "[self._asked[call.call_id] for call in self.calls if call.call_id in self.awaited]",
        "[self._asked[call.call_id] for call in self.calls if call.call_id in self._asked]",
        CALLS,
        kills="unit",
    ),
    Mutant("a turn told again has paid twice", "        self._budget.left += self._turn.paid\n", "", kills="unit"),
    Mutant("a turn told again counts twice", "        self.turns -= 1\n", ""),
    Mutant(
        "a failed turn is a cancelled one",
        'return self._finish("failed", failure=event.failure)\n        return self._summarise()',
        'return self._finish("cancelled")\n        return self._summarise()',
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
        text = (folder / mutant.file).read_text("utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(
                f"{mutant.wrong!r} no longer fits {mutant.file}: its text is there {text.count(mutant.old)} times"
            )
        (folder / mutant.file).write_text(text.replace(mutant.old, mutant.new), "utf-8")


def outcome(mutant: Mutant | None) -> str:
    """What the laws say of the machine with this mutant, or of the machine itself."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        plant(mutant, Path(name))
        tests = TESTS.values() if mutant is None else (TESTS[mutant.kills],)
        try:
            ran = python(Path(name), "-m", "pytest", "-q", "-x", "--tb=no", *NO_PLUGINS, *tests)
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
