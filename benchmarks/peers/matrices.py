"""Events and queries as the sparse matrices that implicit takes; a cell is a number of events."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from benchmarks.peers.tasks import Codes, Log


def user_matrix(log: Log) -> csr_matrix:
    """Return [users, items]; a user or an item without events has an empty row or column."""
    return _counted(log.user, log.item, log.items)


def session_matrix(log: Log) -> csr_matrix:
    """Return [sessions, items]."""
    return _counted(log.session, log.item, log.items)


def sequence_matrix(sequences: list[Codes], items: int) -> csr_matrix:
    """Return [queries, items]."""
    rows = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    columns = np.concatenate([*sequences, np.zeros(0, np.int64)])
    return coo_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(sequences), items)).tocsr()


def _counted(row: Codes, item: Codes, items: int) -> csr_matrix:
    used, place = np.unique(row, return_inverse=True)
    return coo_matrix((np.ones(len(row), np.float32), (place, item)), (len(used), items)).tocsr()
