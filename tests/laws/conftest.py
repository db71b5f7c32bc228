"""How deep the laws dig: `SHEPHERD_LAWS=fast` (default, the same examples every time), `mutate` or `ci`."""

import os

from hypothesis import Phase, Verbosity, settings

settings.register_profile("fast", max_examples=100, stateful_step_count=25, deadline=None, derandomize=True)
settings.register_profile("ci", max_examples=2000, stateful_step_count=50, deadline=None, print_blob=True)
# A mutant only has to die: how small the counterexample is, nobody asks.
settings.register_profile(
    "mutate",
    max_examples=400,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    verbosity=Verbosity.quiet,
)
settings.load_profile(os.environ.get("SHEPHERD_LAWS", "fast"))
