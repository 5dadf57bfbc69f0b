"""Jobs that fail as those on a GPU may, for a process of their own to import; no tests."""

import os
import time

from bench.survivor import Job

_broken = []


def jobs():
    return [
        Job("good", lambda: [{"ok": True}, {"ok": True}]),
        Job("wrong", lambda: [{"ok": False}]),
        Job("an error", _raise),
        Job("an illegal address", _break),
        Job("after it", lambda: [{"process": os.getpid()}]),
        Job("a crash", lambda: os._exit(7)),
        Job("after that", lambda: [{"process": os.getpid()}]),
    ]


def endless():
    return [
        Job("good", lambda: [{"ok": True}]),
        Job("endless", _wait),
        Job("after it", lambda: [{"ok": True}]),
    ]


def is_usable():
    return not _broken


def _right():
    yield {"ok": True}


def _raise():
    yield {"ok": True}
    raise ValueError("no such thing")


def _break():
    _broken.append(True)
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")


def _wait():
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)
    yield {}
