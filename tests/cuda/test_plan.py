"""The rule of regimes: every row length has one, whatever the number of rows, within the GPU's limits."""

import pytest

from fastsoftmax._cuda.plan import ITEMSIZE, MAX_THREADS, SHARED_MEMORY, STATIC_SHARED, plan

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
        (16384, "block"),
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
        (1, "float32", 16_384, 1024, 16),  # 512 threads of 32 slots would spill
        (1, "bfloat16", 8192, 256, 32),
        (1, "bfloat16", 16_384, 512, 32),  # two blocks an SM
        (1, "bfloat16", 32_768, 1024, 32),
        (2, "float32", 8192, 512, 16),
        (2, "float32", 12_288, 1024, 12),
        (2, "bfloat16", 8192, 512, 16),
        (2, "bfloat16", 16_384, 1024, 16),
        (2, "float32", 12_289, 1024, None),  # entry by entry 16 slots would spill
    ],
)
def test_long_rows_in_registers(arrays, storage, n, threads, slots):
    p = plan(arrays, storage, n)
    assert p.threads == threads
    assert p.shared == (slots is None)
    assert p.slots == (slots or p.slots)


def test_a_crowded_op_holds_half():
    p = plan(1, "bfloat16", 16_384, crowded=True)
    assert (p.threads, p.slots) == (1024, 16)
    assert [plan(1, "float32", n, crowded=True).slots for n in (28_672, 32_768, 32_772)] == [28, 36, 36]
    assert plan(1, "float32", 8193, crowded=True).shared
    assert not plan(1, "float32", 8192, crowded=True).shared


def test_regimes_of_columns():
    assert plan(1, "float32", 100, 64).regime == "columns"
    assert plan(1, "float32", 10**5, 64).regime == "split"


def test_less_shared_memory_splits_earlier():
    assert plan(1, "float32", 50_000, shared_memory=99 * 1024).regime == "split"


def test_blocks_cover_all_rows():
    assert plan(1, "float32", 8).blocks((17, 8, 1)) == 2
    assert plan(1, "float32", 100_000).blocks((3, 100_000, 1)) == 3 * 13
    assert plan(1, "float32", 10, 33).blocks((2, 10, 33)) == 2 * 2


def test_accesses_of_16_bytes():
    for storage, size in ITEMSIZE.items():
        assert plan(1, storage, 4096).width * size == 16
        assert plan(1, storage, 4097).width == 1
