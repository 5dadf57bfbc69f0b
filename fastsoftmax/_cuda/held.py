"""The part of a row that a thread holds, in registers or in shared memory, and moving it.

It is ``vectors`` of ``width`` consecutive entries, vector ``v`` from ``position(v, start)`` on. Kernels take
one at a time, as a line of numbers. Shared memory has entries as they are stored, so that there is room for
twice as many where they have 16 bits; a vector there lies beside those of neighbouring threads, and is one
access without a bank conflict.
"""

from collections import namedtuple

Held = namedtuple("Held", "size vectors width keeps position read take give put")

# Of a thread, on their way to shared memory at once: 1024 of them cover an H100's 16 KB an SM.
STEP_BYTES = 32


def make_held(t, plan, team, fill, arrays=1):
    """Place for ``arrays`` rows: ``size`` numbers of a thread's own, or as many words that threads share.

    ``read(x, base, start, end, inner, held, k)`` takes in row ``k``, with ``fill`` where it has no entry.
    ``take(held, v, k, line)`` gives a vector of it, ``give(held, v, line)`` replaces one of row 0, by numbers
    that it ``keeps`` if they are not rounded. ``put(out, base, start, end, inner, v, line)`` writes one.
    """
    width, strided, threads, lane, put_line = plan.width, plan.tile > 0, plan.threads, team.lane, t.put

    @t.device
    def position(v, start):
        return start + (v * threads + lane()) * width

    @t.device
    def place(v, base, start, inner):
        c = position(v, start)
        return base + (c * inner if strided else c)

    @t.device
    def put(out, base, start, end, inner, v, line):
        if position(v, start) < end:
            put_line(out, place(v, base, start, inner), line, 0)

    make = _in_shared_memory if plan.shared else _in_registers
    vectors, read, take, give = make(t, plan, lane, fill, position, place)
    keeps = not plan.shared or plan.itemsize > 2
    return Held(arrays * plan.slots, vectors, width, keeps, position, read, take, give, put)


def _in_registers(t, plan, _lane, fill, position, place):
    count, width, fetch, fill = plan.slots // plan.width, plan.width, t.fetch, t.number(fill)

    @t.device
    def vectors():
        return count

    @t.device
    def at(v, k):
        return (k * count + v) * width

    @t.device
    def read(x, base, start, end, inner, held, k):
        for v in range(count):
            if position(v, start) < end:
                fetch(x, place(v, base, start, inner), held, at(v, k))
            else:
                for q in range(width):
                    held[at(v, k) + q] = fill

    @t.device
    def take(held, v, k, line):
        for q in range(width):
            line[q] = held[at(v, k) + q]

    @t.device
    def give(held, v, line):
        for q in range(width):
            held[at(v, 0) + q] = line[q]

    return vectors, read, take, give


def _in_shared_memory(t, plan, lane, fill, position, place):
    cuda, count, width, threads, word = t.cuda, plan.slots // plan.width, plan.width, plan.threads, t.word
    hidden, copy, blank, move, pull, push = t.hidden, t.copy, t.blank, t.move, t.pull, t.push
    fill = t.stored(fill)
    entries = STEP_BYTES // plan.itemsize
    step = entries // width

    # Hidden, as no loop over them is to be unrolled: all vectors at once take more registers than there are.
    @t.device
    def vectors():
        return hidden(count)

    @t.device
    def at(v, k):
        return hidden(((k * count + v) * threads + lane()) * width)

    @t.device
    def read(x, base, start, end, inner, held, k):
        words = cuda.local.array(entries, word)
        for first in range(0, vectors(), step):
            for u in range(step):
                if position(first + u, start) < end:
                    copy(x, place(first + u, base, start, inner), words, u * width)
                else:
                    blank(fill, words, u * width)
            for u in range(step):
                if first + u < count:
                    move(words, u * width, held, at(first + u, k))

    @t.device
    def take(held, v, k, line):
        pull(held, at(v, k), line, 0)

    @t.device
    def give(held, v, line):
        push(held, at(v, 0), line, 0)

    return vectors, read, take, give
