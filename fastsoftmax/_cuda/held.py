"""The part of a row that a thread holds, in registers or in shared memory, and moving it.

Slots are numbered by vectors: vector ``v`` of a thread is ``width`` consecutive entries of the row, from
``position(v, start)`` on, in slots ``at(v)``, ``at(v) + pitch`` and so on. In shared memory neighbouring
threads have neighbouring slots, so that no access meets a bank conflict.
"""

from collections import namedtuple

Held = namedtuple("Held", "size vectors width pitch at position second read write")


def make_held(t, plan, team, fill, arrays=1):
    """Slots for ``arrays`` rows; those of the second are ``second`` further.

    ``read(x, base, start, end, inner, held, offset)`` takes entries into the slots, ``fill`` where the row
    has no entry; ``write`` is its opposite.
    """
    pitch = plan.threads if plan.shared else 1
    vectors, width, shared, strided = plan.slots // plan.width, plan.width, plan.shared, plan.tile > 0
    threads, lane, fetch, put, fill = plan.threads, team.lane, t.fetch, t.put, t.number(fill)

    @t.device
    def at(v):
        return v * (width * pitch) + (lane() if shared else 0)

    @t.device
    def position(v, start):
        return start + (v * threads + lane()) * width

    @t.device
    def read(x, base, start, end, inner, held, offset):
        for v in range(vectors):
            c = position(v, start)
            slot = at(v) + offset
            if c < end:
                fetch(x, base + (c * inner if strided else c), held, slot)
            else:
                for q in range(width):
                    held[slot + q * pitch] = fill

    @t.device
    def write(out, base, start, end, inner, held):
        for v in range(vectors):
            c = position(v, start)
            if c < end:
                put(out, base + (c * inner if strided else c), held, at(v))

    size = plan.slots * pitch
    return Held(arrays * size, vectors, width, pitch, at, position, size, read, write)
