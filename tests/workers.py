"""What workers of other libraries' pools run: a call that is large enough for helpers, and what it took."""

import contextlib
import os
import zlib
from pathlib import Path

import numpy as np

import fastsoftmax as fs

X = np.random.default_rng(0).normal(size=(3000, 200)).astype(np.float32)
DIGEST = zlib.crc32(fs.softmax(X, num_threads=1))


def work(_=None):
    """Whether its result is right, how many threads it may use, and how many helpers the process has now."""
    y = fs.softmax(X, backend="cython")
    return zlib.crc32(y) == DIGEST, fs.get_num_threads(), _helpers()


def _helpers():
    """How many threads of src_cy/pool.c there are, by their name."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # one that has just ended
            names.append(Path(f"/proc/self/task/{thread}/comm").read_text("utf-8").strip())
    return names.count("fastsoftmax")


class Data:
    """A dataset of six calls, for torch's DataLoader."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return work()
