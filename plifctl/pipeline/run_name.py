"""Names that a run can be given."""

from __future__ import annotations

from plifctl.errors import UsageError
from plifctl.exchange.lookup import names_file

_RESERVED = {"last": "the last run", "auto": "the run that --name states", "sweeps": "the folder of sweeps"}
"""Names that no run can have, and what they mean where a run is named."""


def check_run_name(name: str) -> None:
    """Raises UsageError for a name that no folder of the runs directory can have, or that never names a run."""
    if not name.strip() or {"/", "\\"} & set(name) or name.startswith(".") or not name.isprintable():
        raise UsageError(f"{name!r}: not a valid folder name", hint="choose another name: --name NAME")
    if name in _RESERVED or names_file(name):
        kind = _RESERVED.get(name, "a file, or a network of the zoo")
        raise UsageError(f"{name!r}: as the name of a run it means {kind}", hint="choose another name: --name NAME")
