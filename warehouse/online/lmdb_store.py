"""The embedded store: an LMDB environment a namespace, and a file for the pointer."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import cast

import lmdb

from warehouse.home import write_atomically
from warehouse.online.store import (
    STAMP_BYTES,
    DamagedRecord,
    StoreDamaged,
    StoreError,
    StoreUnreachable,
    StoreUnwritable,
    Value,
)

ROWS_A_COMMIT = 20_000  # a commit waits for the disk; this many rows are a second's work at most
POINTER, DATA = "served.json", "data.mdb"
NO_FILE = -1  # instead of an inode
# Address space that a namespace may take; of the disk it takes what it holds: LMDB fills the file as it grows.
MAXIMUM_BYTES = 1 << 38
MAXIMUM_READERS = 1024  # at the same moment, in all processes together
REFILL = "run the newest day again (adseq run --days DAY --again), which fills the store anew"


@dataclass
class Shared:
    """An open environment.

    LMDB allows a process to open an environment once: the process's stores share it, and the last one closes it.
    ``inode`` is the inode of the environment's file: another process may clear the namespace and fill it anew, in a new
    file.
    """

    environment: lmdb.Environment
    inode: int
    holders: int = 0


_shared: dict[Path, Shared] = {}
_opening = threading.Lock()


class LmdbStore:
    """See ``OnlineStore``. Processes on one machine, and threads of a process, share the store."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._directory = str(self.root)
        self._held: dict[str, Shared] = {}

    def put(self, namespace: str, rows: Iterable[tuple[bytes, Value]]) -> int:
        stored = 0
        with _no_garbage(), self._writing(namespace) as environment:
            for batch in _batches(rows):
                with environment.begin(write=True, buffers=True) as transaction:
                    stored += _put_batch(transaction, batch)
        return stored

    def exchange(self, namespace: str, key: bytes, before: bytes | None, after: bytes) -> bool:
        with self._writing(namespace) as environment, environment.begin(write=True) as transaction:
            return transaction.get(key) == before and bool(transaction.put(key, after))

    def get(self, namespace: str, key: bytes) -> bytes | None:
        # Four times a request: without ``_read``, whose generator takes longer than the read.
        environment = self._namespace(namespace)
        if environment is None:
            return None
        try:
            with _begun(environment) as transaction:
                return cast("bytes | None", transaction.get(key))
        except lmdb.Error as error:
            raise self._unread(namespace, error) from error

    def everything(self, namespace: str) -> dict[bytes, bytes]:
        with self._read(namespace) as transaction:
            pairs = () if transaction is None else cast("Iterable[tuple[bytes, bytes]]", transaction.cursor())
            return dict(pairs)

    def remove(self, namespace: str, keys: Iterable[bytes]) -> int:
        if self._namespace(namespace) is None:
            return 0
        with self._writing(namespace) as environment, environment.begin(write=True) as transaction:
            return sum(transaction.delete(key) for key in keys)

    def count(self, namespace: str) -> int:
        environment = self._namespace(namespace)
        try:
            return 0 if environment is None else int(environment.stat()["entries"])
        except lmdb.Error as error:
            raise StoreUnreachable(f"the online store at {self.root / namespace} cannot be read ({error})") from error

    def namespaces(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*") if path.is_dir())

    def clear(self, namespace: str) -> None:
        with _opening:
            self._let_go(namespace)
            shutil.rmtree(self.root / namespace, ignore_errors=True)

    def check(self, namespaces: Iterable[str]) -> None:
        for namespace in namespaces:
            if self._namespace(namespace) is None:
                raise StoreDamaged(f"the online store lacks {self.root / namespace}: {REFILL}")

    def current(self) -> bytes | None:
        try:
            return (self.root / POINTER).read_bytes()
        except FileNotFoundError:
            return None

    def switch(self, content: bytes) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / POINTER, content)

    def close(self) -> None:
        with _opening:
            for namespace in list(self._held):
                self._let_go(namespace)

    @contextmanager
    def _read(self, namespace: str) -> Iterator[lmdb.Transaction | None]:
        """Yield a transaction to read in; None where there is no such namespace."""
        environment = self._namespace(namespace)
        if environment is None:
            yield None
            return
        try:
            with _begun(environment) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._unread(namespace, error) from error

    def _unread(self, namespace: str, error: lmdb.Error) -> StoreError:
        """Return the error of a read that failed."""
        place = self.root / namespace
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return DamagedRecord(f"a page of {place} is damaged ({error}): {REFILL}")
        return StoreUnreachable(f"the online store at {place} cannot be read ({error})")

    @contextmanager
    def _writing(self, namespace: str) -> Iterator[lmdb.Environment]:
        """Yield the namespace's environment, to write to."""
        try:
            environment = self._namespace(namespace, create=True)
            assert environment is not None
            yield environment
        except lmdb.Error as error:
            raise StoreUnwritable(
                f"the online store at {self.root / namespace} takes no write ({error}): make room on the disk, or "
                "correct the rights of the directory, then try again"
            ) from error

    def _namespace(self, namespace: str, create: bool = False) -> lmdb.Environment | None:
        """Return the namespace's environment; None where there is no such namespace."""
        file = f"{self._directory}/{namespace}/{DATA}"
        held, inode = self._held.get(namespace), _inode(file)
        if held is not None and held.inode == inode:
            return held.environment
        if inode == NO_FILE and held is None and not create:
            return None
        path = self.root / namespace
        with _opening:
            self._held.pop(namespace, None)  # not closed where it was cleared: a thread may still read from it
            shared = _shared.get(path)
            if shared is None or shared.inode != _inode(file):  # another thread may have made it
                _shared.pop(path, None)
                if not create and _length(path) < 0:
                    return None
                shared = _shared[path] = _opened(path, create)
            shared.holders += 1
            self._held[namespace] = shared
            return shared.environment

    def _let_go(self, namespace: str) -> None:
        """Give up the namespace's environment, and close it when nobody else holds it. The caller holds the lock."""
        held = self._held.pop(namespace, None)
        if held is None:
            return
        held.holders -= 1
        if held.holders == 0:
            held.environment.close()
            if _shared.get(self.root / namespace) is held:
                del _shared[self.root / namespace]


def _inode(file: str) -> int:
    """Return the inode of a namespace's file; ``NO_FILE`` without a file."""
    try:
        return os.stat(file).st_ino
    except FileNotFoundError:
        return NO_FILE


def _opened(path: Path, create: bool) -> Shared:
    """Open a namespace; for reading only, where its directory cannot be written.

    Raises:
        StoreDamaged: the file is shorter than what was written into it.
        StoreUnreachable: the file cannot be opened.
    """
    if create:
        _make(path)
    if not create and _length(path) == 0:  # LMDB would take it for a new one
        raise StoreDamaged(f"{path / DATA} is empty: {REFILL}")
    # A lock is a file that is written to. Where nobody can write, no reader needs one.
    writable = os.access(path, os.W_OK)
    try:
        environment = lmdb.open(
            str(path),
            map_size=MAXIMUM_BYTES,
            max_readers=MAXIMUM_READERS,
            readahead=False,
            readonly=not writable,
            lock=writable,
        )
    except lmdb.Error as error:
        raise StoreUnreachable(
            f"the online store at {path} cannot be opened ({error}): check the disk and its rights, or {REFILL}"
        ) from error
    _refuse_cut_off(path, environment)
    if writable:
        environment.reader_check()  # frees what killed readers held
    return Shared(environment, _inode(str(path / DATA)))


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnwritable(f"{path} cannot be made ({error.strerror}): correct the rights of the home") from error


def _refuse_cut_off(path: Path, environment: lmdb.Environment) -> None:
    """Close an environment whose file ends before its last page: to read there would kill the process.

    Raises:
        StoreDamaged: the file ends before its last page.
    """
    needed, length = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"], _length(path)
    if length < needed:
        environment.close()
        raise StoreDamaged(f"{path / DATA} has {length:,} bytes and was written with {needed:,}: {REFILL}")


def _length(path: Path) -> int:
    """Return the length of the namespace's file in bytes; -1 without a file."""
    try:
        return (path / DATA).stat().st_size
    except FileNotFoundError:
        return -1


def _begun(environment: lmdb.Environment) -> lmdb.Transaction:
    """Return a transaction to read in. When all reader places are taken, the places of killed readers are freed."""
    try:
        return environment.begin()
    except lmdb.ReadersFullError:
        environment.reader_check()
        return environment.begin()


def _put_batch(transaction: lmdb.Transaction, batch: list[tuple[bytes, Value]]) -> int:
    cursor, stored = transaction.cursor(), 0
    last = bytes(cursor.key()) if cursor.last() else b""
    if last < batch[0][0] and all(one[0] < next_one[0] for one, next_one in pairwise(batch)):
        # A namespace that is filled in order, as a new version's is: full pages, and nothing is searched for.
        cursor.putmulti(batch, append=True)
        return len(batch)
    for key, value in batch:
        held = transaction.get(key)
        if held is None or bytes(held[:STAMP_BYTES]) <= bytes(value[:STAMP_BYTES]):
            transaction.put(key, value)
            stored += 1
    return stored


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Switch the garbage collector off within the block.

    The collector would walk over all objects of the process again and again for the millions of rows made here, none of
    them garbage: a third of the time in a process that has imported much.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _batches(rows: Iterable[tuple[bytes, Value]]) -> Iterator[list[tuple[bytes, Value]]]:
    """Yield batches of rows. The next batch is made while the disk takes the batch before."""
    remaining = iter(rows)

    def take() -> list[tuple[bytes, Value]]:
        return list(islice(remaining, ROWS_A_COMMIT))

    batch = take()
    if len(batch) < ROWS_A_COMMIT:
        if batch:
            yield batch
        return
    with ThreadPoolExecutor(1, "batches") as ahead:
        while batch:
            coming = ahead.submit(take)
            yield batch
            batch = coming.result()
