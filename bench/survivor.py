"""Jobs in a process of their own, and in a new one where a job broke it: each row is on disk as it comes.

An illegal address leaves a process no use of the GPU, a barrier that not all threads reach never returns,
and a machine may be taken away at any moment.
"""

import json
import time
import traceback
from collections import namedtuple
from multiprocessing import get_context

Job = namedtuple("Job", "name run")  # run() yields rows, which are dicts

PATIENCE = 90  # seconds for a job, the start of a process included


class Record:
    """Rows, appended to a file of JSON lines and then printed."""

    def __init__(self, path):
        self.path, self.rows = path, []
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, **row):
        self.rows.append(row)
        line = json.dumps(row, default=str)
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def run(make_jobs, is_usable, record, until, patience=PATIENCE):
    """Every job of ``make_jobs()`` in order, while there is time.

    ``is_usable()`` says after each whether its process can go on. Both are functions of a module, which a
    new process imports.
    """
    names = [job.name for job in make_jobs()]
    done = 0
    while done < len(names) and time.time() < until:
        done = _run_from(done, names, make_jobs, is_usable, record, until, patience)
    for name in names[done:]:
        record.add(job=name, skipped="no time left")


def _run_from(done, names, make_jobs, is_usable, record, until, patience):
    """The number of jobs that are done when the process is."""
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(make_jobs, is_usable, done, send), daemon=True)
    process.start()
    send.close()
    try:
        while done < len(names):
            if not receive.poll(max(0, min(patience, until - time.time()))):
                if time.time() < until:
                    record.add(job=names[done], error=f"no answer in {patience} s")
                    done += 1
                return done
            row, usable = receive.recv()
            if row is not None:
                record.add(job=names[done], **row)
                continue
            done += 1
            if not usable:
                return done
    except EOFError:
        process.join()
        record.add(job=names[done], error=f"the process ended with {process.exitcode}")
        return done + 1
    finally:
        process.kill()
        process.join(10)  # or leave it: the driver may not let go of one whose kernel never ends
    return done


def _work(make_jobs, is_usable, first, send):
    for job in list(make_jobs())[first:]:
        try:
            for row in job.run():
                send.send((row, True))
        except Exception as error:
            place = "".join(traceback.format_tb(error.__traceback__)[-2:])
            send.send(({"error": f"{type(error).__name__}: {error}", "at": place}, True))
        usable = is_usable()
        send.send((None, usable))
        if not usable:
            return
