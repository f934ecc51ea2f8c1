"""User keys: derived data names users by keys; the ids are in the landing zone and in ``identities`` only.

The key is a keyed hash of the id (BLAKE2b, RFC 7693). Whoever has the tables and not the home's secret cannot tell
whose rows they are; table ``identities`` leads back for those who may, and loses a user who is forgotten.
"""

from __future__ import annotations

import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

IDENTITIES = "identities"
IDENTITY_SCHEMA = {"user_id": pl.String(), "external_id": pl.String()}
SECRET_FILE = "user-keys.secret"
SECRET_BYTES = 32
# Of 100 million users, two share a key with a chance of one in a million; twelve characters of base64, which Polars
# keeps in place.
KEY_BYTES = 9
_NO_SECRET = b"a synthetic world has no persons"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class SecretMissing(RuntimeError):
    """The secret that the keys of a home's users were made with is gone, or damaged."""


class SecretMismatch(RuntimeError):
    """The home's users have the public keys of a synthetic world and their log is not synthetic, or the reverse."""


@dataclass(frozen=True)
class UserKeys:
    """The function from a user's id to the user's key."""

    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, tables: Tables, landing: Landing) -> UserKeys:
        """Return the keys of a home. The secret is made before the first table.

        A synthetic log has the same keys in every home, so that its figures are the same in every home: users are
        sorted by key, and training draws users in that order.

        Raises:
            SecretMissing: there are tables, and the secret of their keys is gone or damaged.
            SecretMismatch: the secret is the public one and the manifest does not say ``synthetic``, or the reverse.
            ManifestError: the manifest breaks a rule.
        """
        path = secret_path(tables)
        if not path.exists():
            if tables.names():
                raise SecretMissing(
                    f"The user-key secret {path} is missing. A new secret could not match existing users or deletion "
                    "requests. Restore the secret from a backup, or start a new home."
                )
            _make_secret(path, _NO_SECRET if landing.manifest.synthetic else os.urandom(SECRET_BYTES))
        secret = path.read_bytes()
        _check_secret(path, secret, landing)
        return cls(secret)

    @classmethod
    def of_home(cls, home: Home) -> UserKeys:
        """Return the keys of ``home``. Raises as ``of`` does."""
        return cls.of(Tables(home.tables), Landing(home.landing))

    def key(self, user_id: str) -> str:
        """Return the key of one user."""
        return _text(hashlib.blake2b(user_id.encode(), digest_size=KEY_BYTES, key=self.secret).digest())

    def keys(self, user_ids: pl.Series) -> pl.Series:
        """Return the keys of many users; null where the id is null.

        >>> keys = UserKeys(b"the secret of one home").keys(pl.Series(["ann", "bob", None, "ann"]))
        >>> keys[0] == keys[3], keys[0] == keys[1], keys[2], keys.str.len_chars().max()
        (True, False, None, 12)
        >>> keys[0] == UserKeys(b"the secret of another home").key("ann")
        False
        """
        distinct = user_ids.drop_nulls().unique()
        keyed, hashes = hashlib.blake2b(digest_size=KEY_BYTES, key=self.secret), []
        for user_id in distinct.to_list():
            one = keyed.copy()
            one.update(user_id.encode())
            hashes.append(one.digest())
        text = _text(b"".join(hashes))
        width = len(text) // max(len(hashes), 1)
        keys = pl.Series([text[start : start + width] for start in range(0, len(text), width or 1)], dtype=pl.String)
        known = pl.DataFrame({"id": distinct, "key": keys})
        return user_ids.alias("id").to_frame().join(known, on="id", how="left", maintain_order="left")["key"]


def secret_path(tables: Tables) -> Path:
    """Return the path of the secret that the user keys of ``tables`` are made with."""
    return tables.root / SECRET_FILE


def _check_secret(path: Path, secret: bytes, landing: Landing) -> None:
    public, manifest = secret == _NO_SECRET, landing.root / "manifest.toml"
    if not public and len(secret) != SECRET_BYTES:
        raise SecretMissing(
            f"{path} is damaged: it has {len(secret)} bytes and not {SECRET_BYTES}. Put it back from a backup of the "
            "home, or begin a new home."
        )
    if not landing.root.is_dir() or landing.manifest.synthetic == public:
        return
    if public:
        raise SecretMismatch(
            f"{manifest} does not say `synthetic = true`, but the users of this home have the keys of a synthetic "
            f"world, whose secret is public ({path}). Begin a new home for a log of persons (--home), or put the line "
            "back."
        )
    raise SecretMismatch(
        f"{manifest} says `synthetic = true`, but the users of this home have keys with a secret of their own "
        f"({path}). Remove the line, or begin a new home for the synthetic log (--home)."
    )


def record_identities(tables: Tables, source: str, arrival_date: date, pairs: Iterable[pl.DataFrame]) -> None:
    """Replace the identities of an arrival: pairs of user_id (the key) and external_id, each pair once."""
    tables.write_batches(IDENTITIES, pl.Schema(IDENTITY_SCHEMA), pairs, identity_partition(source, arrival_date))


def identity_partition(source: str, arrival_date: date) -> dict[str, str | date]:
    """Return the partition of the identities of an arrival of the table ``source``."""
    return {"source": source, "arrival_date": arrival_date}


def external_ids(tables: Tables, keys: pl.Series) -> pl.Series:
    """Return the external ids of keys, in the order of the keys; null for an unknown key."""
    if not tables.exists(IDENTITIES):
        return pl.Series([None] * len(keys), dtype=pl.String)
    wanted = keys.alias("user_id").to_frame()
    near = pl.col("user_id").is_between(pl.lit(keys.min()), pl.lit(keys.max()))  # few row groups where keys are sorted
    pairs = tables.scan(IDENTITIES).select(list(IDENTITY_SCHEMA)).filter(near)
    known = pairs.join(wanted.lazy(), on="user_id", how="semi").unique("user_id").collect()
    return wanted.join(known, on="user_id", how="left", maintain_order="left")["external_id"]


def known_ids(tables: Tables, ids: pl.Series) -> set[str]:
    """Return the ``ids``, as the landing zone has them, that an ingested row names."""
    if not tables.exists(IDENTITIES):
        return set()
    named = tables.scan(IDENTITIES).filter(pl.col("external_id").is_in(ids.implode()))
    return set(named.select("external_id").unique().collect()["external_id"])


def _text(content: bytes) -> str:
    """Return bytes as Base64 for URLs.

    Nine bytes are twelve characters, so the text of several keys can be cut into the texts of the keys.
    """
    return binascii.b2a_base64(content, newline=False).translate(_URL_SAFE).decode()


def _make_secret(path: Path, secret: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.link(made, path)  # whole, and only if nobody else was first
    except FileExistsError:
        pass
    finally:
        made.unlink(missing_ok=True)
