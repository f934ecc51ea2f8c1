"""What a process does that trains for another process of the same machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import torch
from threadpoolctl import threadpool_limits


def be_a_worker() -> None:
    """Use one thread, leave interrupts to the parent, and end with the parent."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
