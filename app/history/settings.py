"""What an operator may decide about what is kept, and about runs that outlive a process."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class HistorySettings(Struct, frozen=True, kw_only=True):
    """Runs, their logs, sealing and retention. Durations are in the unit their name ends with."""

    commit_interval_ms: Annotated[
        float,
        Meta(
            ge=0,
            description="Events of all runs that come within this time are committed together. Nothing is sent before "
            "it is committed, so this is also how long a token may wait; the first after a pause does not.",
        ),
    ] = 25.0
    patience_secs: Annotated[
        float, Meta(ge=0, description="How long a run waits for a database that does not answer before it fails.")
    ] = 10.0
    lease_secs: Annotated[
        float,
        Meta(
            ge=0.5,
            description="A run whose process did not say for this long that it is alive is taken over by another one.",
        ),
    ] = 6.0
    poll_secs: Annotated[
        float,
        Meta(gt=0, description="How often to look for runs to take over and, on SQLite, for other processes' events."),
    ] = 1.0
    sweep_secs: Annotated[float, Meta(gt=0, description="How often to look for what is to be forgotten.")] = 60.0
    opened_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="So many bytes of contexts that were read lately are held in memory, opened, so that the next "
            "turn reads only what is new. 0: every turn reads all of it.",
        ),
    ] = 64 * 2**20
    opened_secs: Annotated[
        float, Meta(gt=0, description="How long such a context is held at most, however often it is used.")
    ] = 60.0
    encrypt: Annotated[
        bool, Meta(description="Seal everything clients and models said before it is written to the database.")
    ] = True
    accept_unsealed: Annotated[
        bool,
        Meta(
            description="Also read what is not sealed, of a database that is older than sealing, until "
            "`shepherd seal upgrade` has sealed it."
        ),
    ] = False
    master_key_file: Annotated[
        str | None,
        Meta(
            description="File with the master key (32 bytes in base64). Not set: master.key in the data directory, "
            "made at the first start. Whoever loses it loses what was sealed."
        ),
    ] = None
    master_key_command: Annotated[
        tuple[str, ...],
        Meta(description="Command that prints the master key, for a KMS or a vault; instead of a file."),
    ] = ()
    previous_master_key_files: Annotated[
        tuple[str, ...],
        Meta(description="Master keys that were replaced; needed until `shepherd seal rotate` has run."),
    ] = ()
