"""The rule of regimes: every row length has one, whatever the number of rows, within the GPU's limits."""

import pytest

from fastsoftmax._cuda.plan import ITEMSIZE, MAX_THREADS, SHARED_MEMORY, STATIC_SHARED, SYSTEM_SHARED, plan

LENGTHS = [
    *range(1, 140),
    255,
    256,
    1000,
    1023,
    1024,
    1025,
    2048,
    4097,
    8192,
    16384,
    28000,
    50257,
    10**5,
    10**6,
]


@pytest.mark.parametrize("arrays", [1, 2])
@pytest.mark.parametrize("storage", ITEMSIZE)
@pytest.mark.parametrize("inner", [1, 2, 5, 100])
def test_every_length_fits(storage, arrays, inner):
    for n in LENGTHS:
        p = plan(arrays, storage, n, inner)
        x, y = p.block
        assert 1 <= x * y <= MAX_THREADS
        assert p.segments(n) * p.segment >= n
        assert p.split or p.segment >= n
        assert p.slots % p.width == 0
        assert inner > 1 or n % p.width == 0
        assert p.shared_bytes(arrays) <= SHARED_MEMORY - STATIC_SHARED
        registers = arrays * p.slots * max(1, ITEMSIZE[storage] // 4)
        assert p.shared or registers <= 32


@pytest.mark.parametrize(
    ("n", "regime"),
    [
        (5, "sub-warp"),
        (128, "sub-warp"),
        (256, "warp"),
        (1024, "warp"),
        (4096, "block"),
        (8192, "block"),
        (16384, "shared"),
        (50000, "shared"),
        (56 * 1024, "shared"),
        (100_000, "split"),
    ],
)
def test_regimes_of_float32(n, regime):
    assert plan(1, "float32", n).regime == regime


@pytest.mark.parametrize(
    ("arrays", "storage", "n", "threads", "slots"),
    [
        (1, "float32", 2048, 128, 16),
        (1, "bfloat16", 2048, 64, 32),
        (1, "float32", 8192, 512, 16),
        (1, "bfloat16", 8192, 256, 32),
        (1, "bfloat16", 16_384, 512, 32),
        (2, "float32", 8192, 512, 16),
        (2, "bfloat16", 1024, 64, 16),
        (2, "bfloat16", 8192, 512, 16),
    ],
)
def test_long_rows_in_registers(arrays, storage, n, threads, slots):
    p = plan(arrays, storage, n)
    assert (p.threads, p.slots, p.shared) == (threads, slots, False)


@pytest.mark.parametrize(
    ("arrays", "storage", "n", "threads"),
    [
        (1, "float32", 8193, 512),
        (1, "float32", 24 * 1024, 512),
        (1, "float32", 32_768, 1024),
        (1, "bfloat16", 32_768, 512),
        (1, "bfloat16", 50_257, 512),
        (1, "float64", 12 * 1024, 512),
        (2, "float32", 12_288, 512),
        (2, "bfloat16", 24 * 1024, 512),
    ],
)
def test_an_sm_has_shared_memory_for_two_blocks(arrays, storage, n, threads):
    """Where it is at all possible: one computes while the other reads and writes."""
    p = plan(arrays, storage, n)
    assert (p.threads, p.shared, p.split) == (threads, True, False)
    blocks = (SHARED_MEMORY + SYSTEM_SHARED) // (p.shared_bytes(arrays) + STATIC_SHARED + SYSTEM_SHARED)
    assert blocks >= 1024 // threads


@pytest.mark.parametrize("storage", ITEMSIZE)
@pytest.mark.parametrize("arrays", [1, 2])
def test_two_segments_of_a_row_are_on_an_sm(arrays, storage):
    p = plan(arrays, storage, 10**6)
    assert p.split
    assert 2 * (p.shared_bytes(arrays) + STATIC_SHARED + SYSTEM_SHARED) <= SHARED_MEMORY + SYSTEM_SHARED


def test_a_crowded_op_holds_half():
    p = plan(1, "bfloat16", 8192, crowded=True)
    assert (p.threads, p.slots) == (512, 16)
    assert plan(1, "float32", 8193, crowded=True).shared
    assert not plan(1, "float32", 8192, crowded=True).shared


def test_regimes_of_columns():
    assert plan(1, "float32", 100, 64).regime == "columns"
    assert plan(1, "float32", 10**5, 64).regime == "split"


def test_less_shared_memory_splits_earlier():
    assert plan(1, "float32", 50_000, shared_memory=99 * 1024).regime == "split"


def test_blocks_cover_all_rows():
    assert plan(1, "float32", 8).blocks((17, 8, 1)) == 2
    assert plan(1, "float32", 100_000).blocks((3, 100_000, 1)) == 3 * 4
    assert plan(1, "float32", 10, 33).blocks((2, 10, 33)) == 2 * 2


def test_accesses_of_16_bytes():
    for storage, size in ITEMSIZE.items():
        assert plan(1, storage, 4096).width * size == 16
        assert plan(1, storage, 4097).width == 1
