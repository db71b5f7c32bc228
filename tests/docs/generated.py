"""What the documentation has from the code. `make docs` writes it; a test holds it equal."""

from __future__ import annotations

from pathlib import Path

from app.settings.explain import document, shown
from app.settings.tree import Leaf, leaves

ROOT = Path(__file__).parents[2]
BEGIN = "<!-- made by `make docs` -->"
END = "<!-- end -->"

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
    return {ROOT / "docs" / "configuration.md": document(), readme: _spliced(readme.read_text("utf-8"))}


def excerpt() -> str:
    """The README's table: the settings most installations decide."""
    known = {leaf.path: leaf for leaf in leaves()}
    rows = [_row(known[path]) for path in FIRST]
    return "\n".join(["| flag | default | what it decides |", "|---|---|---|", *rows])


def _row(leaf: Leaf) -> str:
    default = "" if leaf.default in (None, ()) else f"`{shown(leaf, leaf.default)}`"
    return f"| `{leaf.flag or leaf.path}` | {default} | {leaf.description} |"


def _spliced(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{excerpt()}\n{END}{after}"


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, "utf-8")
