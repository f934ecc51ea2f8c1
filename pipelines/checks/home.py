"""What a home says of itself: its record, who may read it, the secret of its user keys, its landing zone."""

from __future__ import annotations

import stat

import polars as pl

from pipelines.checks.fault import Checked, Fault, Part
from warehouse.home_record import HomeRecordError, record_path
from warehouse.identity import IDENTITIES, SecretMismatch, SecretMissing, UserKeys, secret_path
from warehouse.landing import ManifestError
from warehouse.open_home import PRIVATE, require_format
from warehouse.remedies import BACKUP
from warehouse.tables import TableDamaged

SAMPLE = 1000  # users whose keys are made again


def record_part(checked: Checked) -> Part:
    """Check ``home.json``, the permissions of the home, and whether the home's landing zone is there."""
    faults, notes = [], []
    try:
        require_format(checked.home)
    except HomeRecordError as error:
        faults.append(Fault(str(error), f"adseq migrate, or {BACKUP}"))
    mode = stat.S_IMODE(checked.home.root.stat().st_mode)
    if mode & PRIVATE:
        notes.append(
            f"{checked.home.root} can be entered by others (mode {mode:o}). To close it: chmod -R go-rwx "
            f"{checked.home.root}"
        )
    if not checked.home.landing.is_dir():
        faults.append(Fault(f"the landing zone {checked.home.landing} is missing", "put it back, or give --landing"))
    if (checked.home.root / "lock.holder.json").exists():
        notes.append("another command may be writing to the home: what it has half done shows as broken")
    return Part("home", str(record_path(checked.home)), faults, notes)


def users_part(checked: Checked) -> Part:
    """Check that the secret is the one that made the users' keys."""
    tables, path = checked.tables, secret_path(checked.tables)
    try:
        if not tables.names():
            return Part("user keys", "no user yet")
        if not path.exists():
            raise SecretMissing(f"{path} is missing")
        keys = UserKeys.of_home(checked.home)
        if not tables.exists(IDENTITIES):
            return Part("user keys", str(path))
        pairs = tables.scan(IDENTITIES).select("user_id", "external_id").head(SAMPLE).collect()
    except (SecretMissing, SecretMismatch) as error:
        return Part("user keys", str(path), [Fault(str(error), BACKUP)])
    except (TableDamaged, ManifestError, OSError, pl.exceptions.PolarsError) as error:
        return Part("user keys", str(path), notes=[f"could not be checked: {str(error).splitlines()[0]}"])
    wrong = int((keys.keys(pairs["external_id"]) != pairs["user_id"]).sum())
    if not wrong:
        return Part("user keys", f"{pairs.height:,} keys made again")
    what = f"{path} is not the secret of this home: {wrong:,} of {pairs.height:,} keys are others"
    return Part("user keys", str(path), [Fault(what, BACKUP)])
