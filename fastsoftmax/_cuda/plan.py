"""Which threads do a row, and how they hold it: a rule of dtype, row length and stride alone.

Nothing here depends on how many rows there are or where they lie, so that a row gives the same bits in
any batch. An unaligned pointer changes the instructions, never which thread does which entry.

=========  =====================================================  ==================
regime     one row is done by                                     held in
=========  =====================================================  ==================
sub-warp   8 or 16 lanes, several rows a warp                     registers
warp       32 lanes                                               registers
block      64 to 512 threads                                      registers
shared     512 or 1024 threads                                    shared memory
columns    threads a stride apart (``inner > 1``), 32 rows wide   registers
split      one block for each segment, and their sums combined    either, read twice
=========  =====================================================  ==================
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

ACCESS_BYTES = 16
REGISTERS = 32  # 32-bit words of row that a thread holds; in some blocks of more warps half
WARP = 32
LANES_A_BLOCK = 128
MAX_THREADS = 1024
HALF_THREADS = MAX_THREADS // 2  # of blocks for which an SM has registers for two
COLUMNS = 32
LOWEST_CAPABILITY = (8, 0)  # Ampere's: cvt.rn.f16x2.f32 and the like, which round to 16 bits
SHARED_MEMORY = 227 * 1024  # compute capability 9.0 and 10.0
STATIC_SHARED = 3 * 1024  # kept free for the reductions' own arrays
SYSTEM_SHARED = 1024  # of each block, beyond what it may have


@dataclass(frozen=True)
class Plan:
    """How rows of one kind are computed; kernels are compiled for one."""

    storage: str  # dtype of the arrays in memory
    threads: int  # that do one row, or one segment of it
    width: int  # consecutive entries a thread takes at once
    slots: int  # entries a thread holds
    tile: int = 0  # rows side by side in a block, where inner > 1; otherwise 0
    shared: bool = False  # slots are in shared memory
    split: bool = False  # a row takes several blocks, and is read again
    vector: bool = True  # each width is one access

    @property
    def arithmetic(self):
        """The dtype that is computed in."""
        return "float64" if self.storage == "float64" else "float32"

    @property
    def itemsize(self):
        return ITEMSIZE[self.storage]

    @property
    def rows(self):
        """Rows in one block."""
        return self.tile or max(1, LANES_A_BLOCK // self.threads if self.threads <= WARP else 1)

    @property
    def block(self):
        """The block's threads, in x and y."""
        return (self.tile, self.threads) if self.tile else (self.threads, self.rows)

    @property
    def segment(self):
        """Entries that one block can hold of a row."""
        return self.threads * self.slots

    @property
    def regime(self):
        if self.split:
            return "split"
        if self.tile:
            return "columns"
        if self.shared:
            return "shared"
        return "block" if self.threads > WARP else "warp" if self.threads == WARP else "sub-warp"

    def segments(self, n):
        """Blocks that share a row."""
        return -(-n // self.segment) if self.split else 1

    def blocks(self, canonical):
        """Blocks for all rows."""
        outer, n, inner = canonical
        groups = outer * -(-inner // self.tile) if self.tile else -(-outer // self.rows)
        return groups * self.segments(n)

    def shared_bytes(self, arrays):
        """Dynamic shared memory of a block that holds ``arrays`` rows."""
        return arrays * self.segment * self.itemsize if self.shared else 0


@lru_cache(maxsize=4096)
def plan(arrays, storage, n, inner=1, *, crowded=False, vector=True, shared_memory=SHARED_MEMORY):
    """The plan for ``arrays`` inputs of rows of ``n`` entries, ``inner`` apart.

    ``crowded`` is an op that takes many registers beside its row.
    """
    words = ITEMSIZE[storage] // 4 or 1
    budget = REGISTERS // (arrays * words)
    if inner > 1:
        return _columns(storage, n, inner, budget)
    width = gcd(n, ACCESS_BYTES // ITEMSIZE[storage])
    vector = vector and width > 1
    exact = arrays == 1 and ITEMSIZE[storage] > 2  # exp as a polynomial of every entry
    for threads, most in _teams(budget, 2 if crowded or exact else 1):
        if (slots := _slots(n, threads, width)) <= most:
            return Plan(storage, threads, width, slots, vector=vector)
    half, whole = (shared_memory - SYSTEM_SHARED) // 2 - STATIC_SHARED, shared_memory - STATIC_SHARED
    for threads, room in (HALF_THREADS, half), (MAX_THREADS, whole):
        slots = width * -(-n // (threads * width))
        p = Plan(storage, threads, width, slots, shared=True, vector=vector)
        if p.shared_bytes(arrays) <= room:
            return p
    slots = width * (half // (HALF_THREADS * width * ITEMSIZE[storage] * arrays))
    return Plan(storage, HALF_THREADS, width, slots, shared=True, split=True, vector=vector)


def _teams(budget, share):
    """Thread counts, each with the most slots that it is taken for: parallelism first, registers last.

    64 registers are left to a thread of two blocks of 512. What would spill there holds a half.
    """
    few, most = max(budget // 4, 1), budget // share
    return (8, few), (16, few), (WARP, budget), (64, most), (128, most), (256, most), (HALF_THREADS, most)


def _slots(n, threads, width):
    """Slots for a row over so many threads; beyond 8 vectors in steps of 4, for fewer kernels to compile."""
    vectors = -(-n // (threads * width))
    return width * (vectors if vectors <= 8 else -(-vectors // 4) * 4)


def _columns(storage, n, inner, budget):
    tile = min(COLUMNS, 1 << (inner - 1).bit_length())
    threads = 1
    while threads * tile < HALF_THREADS and threads * 4 < n:
        threads *= 2
    split = threads * budget < n
    slots = budget if split else _slots(n, threads, 1)
    return Plan(storage, threads, 1, slots, tile=tile, split=split, vector=False)
