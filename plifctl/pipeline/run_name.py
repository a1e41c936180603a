"""Names that a run can be given."""

from __future__ import annotations

import os

from plifctl.errors import UsageError
from plifctl.exchange.lookup import names_file

_MAX_NAME_BYTES = 200  # of 255; files and folders are written under longer, temporary names first
_RESERVED = {"last": "the last run", "auto": "the run that --name states", "sweeps": "the folder of sweeps"}
"""Names that no run can have, and what they mean where a run is named."""


def check_run_name(name: str) -> None:
    """Raises UsageError for a name that no folder of the runs directory can have, or that never names a run."""
    if not name.strip() or {"/", "\\"} & set(name) or name.startswith(".") or not name.isprintable():
        raise UsageError(f"{name!r}: not a valid folder name", hint="choose another name: --name NAME")
    if name.startswith("-"):
        raise UsageError(
            f"{name!r}: a name that begins with - would be read as an option", hint="choose another --name"
        )
    if (nbytes := len(os.fsencode(name))) > _MAX_NAME_BYTES:
        raise UsageError(
            f"{name[:20]}…: a name of {nbytes} bytes", hint=f"choose one of at most {_MAX_NAME_BYTES}: --name NAME"
        )
    if name in _RESERVED or names_file(name):
        kind = _RESERVED.get(name, "a file, or a network of the zoo")
        raise UsageError(f"{name!r}: as the name of a run it means {kind}", hint="choose another name: --name NAME")
