"""What the documentation has from the code. `make docs` writes it; a test holds it equal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from app.dialects.openai_responses import not_yet, support
from app.settings.explain import document, shown
from app.settings.tree import Leaf, leaves

ROOT = Path(__file__).parents[2]

# What most installations decide, in the order they ask for it.
FIRST = (
    "routing.worker_urls",
    "routing.policy",
    "server.host",
    "server.port",
    "db.url",
    "server.data_dir",
    "server.prometheus_port",
    "server.max_payload_size",
    "backends.request_timeout_secs",
    "server.log_level",
    "server.log_json",
)


def texts() -> dict[Path, str]:
    """Every file with generated text, as it should be."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for name, made in (("settings", settings()), ("refused", refused())):
        text = _put(text, name, made)
    return {
        ROOT / "docs" / "configuration.md": document(),
        ROOT / "docs" / "responses.md": support.document(),
        readme: text,
    }


def settings() -> str:
    """The README's table: the settings most installations decide."""
    known = {leaf.path: leaf for leaf in leaves()}
    rows = [_row(known[path]) for path in FIRST]
    return "\n".join(["| flag | default | what it decides |", "|---|---|---|", *rows])


def refused() -> str:
    """The fields of a request that this version refuses by name."""
    return ", ".join(f"`{field}`" for field in _refused()) + "."


def _refused() -> Iterator[str]:
    yield from (field for field, _, _ in not_yet.REQUEST)
    of_tools = [lines for name, lines in vars(not_yet).items() if name.endswith("_TOOL")]
    named = dict.fromkeys(field.replace("asynchronous", "async") for lines in of_tools for field, _, _ in lines)
    yield from (f"tools[].{field}" for field in named)


def _row(leaf: Leaf) -> str:
    default = "" if leaf.default in (None, ()) else f"`{shown(leaf, leaf.default)}`"
    return f"| `{leaf.flag or leaf.path}` | {default} | {leaf.description} |"


def _put(text: str, name: str, made: str) -> str:
    """`text` with `made` between the marks called `name`."""
    begin, end = f"<!-- {name}: made by `make docs` -->\n", f"\n<!-- end of {name} -->"
    found = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    if len(found.findall(text)) != 1:
        raise SystemExit(f"README.md has no place for {name}")
    return found.sub(lambda _match: made, text)


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, "utf-8")
