"""Mutants: small mistakes in the sources, one at a time, each of which some test must notice.

    python -m tests.mutation             run them all, two at a time, and write docs/mutants.md
    python -m tests.mutation registry    run those with the word in their file or function; write nothing

Each runs on a copy of the project, compiled kernels and all, in a temporary folder. What no test can
notice, since every result stays the same, says why; should a test notice it all the same, the run fails.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants import MUTANTS, SUITES

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "mutants.md"
LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "results", "*.c", "*.png"
)
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider")
AT_ONCE = 2
SECONDS = 1800  # a mutant may never end; a healthy run takes a tenth of this

HEAD = """# Mutants

Written by `make mutants` (tests/mutation.py), from the table in tests/mutants.py: each line is one small
mistake planted in the sources, and the first test that fails for it. Where nothing can fail, it says why.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the test that failed, or None. Its place is that of before the run."""

    mutant: object
    place: str
    noticed_by: str | None

    @property
    def expected(self):
        return (self.noticed_by is None) == bool(self.mutant.equivalent)

    @property
    def verdict(self):
        if self.noticed_by is None:
            return f"equivalent: {self.mutant.equivalent}" if self.mutant.equivalent else "**SURVIVED**"
        return f"`{self.noticed_by}`" + (" (said to be equivalent)" if self.mutant.equivalent else "")


def check_table(mutants):
    """Every old text is there, once, and every new one is Python; else say which is not, and stop."""
    for mutant in mutants:
        source = (ROOT / mutant.file).read_text("utf-8")
        if (found := source.count(mutant.old)) != 1:
            sys.exit(
                f"{mutant.file}: the text to replace is there {found} times, expected once:\n{mutant.old}"
            )
        try:
            ast.parse(source.replace(mutant.old, mutant.new))
        except SyntaxError as error:
            sys.exit(f"{mutant.file}: {error} with\n{mutant.new}")


def run_all(mutants):
    """The outcomes, in the order of the table."""
    places = [place(mutant) for mutant in mutants]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copies = SimpleQueue()
        for i in range(AT_ONCE):
            copy = Path(directory) / str(i)
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
            copies.put(copy)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            healthy = list(pool.map(lambda file: first_failure(copies, file), {m.file for m in mutants}))
            if any(healthy):
                sys.exit(f"the tests fail without a mutant: {', '.join(filter(None, healthy))}")
            runs = [pool.submit(first_failure, copies, m.file, m) for m in mutants]
            outcomes = []
            for mutant, where, run in zip(mutants, places, runs, strict=True):
                outcomes.append(Outcome(mutant, where, run.result()))
                print(f"[{len(outcomes)}/{len(mutants)}] {where}: {outcomes[-1].verdict}", flush=True)
    return outcomes


def first_failure(copies, file, mutant=None):
    """The test of a file's suite that fails first, if any, with the mutant planted in one of the copies."""
    copy = copies.get()
    source = (copy / file).read_text("utf-8")
    try:
        if mutant is not None:
            (copy / file).write_text(source.replace(mutant.old, mutant.new), "utf-8")
        return _run_tests(copy, SUITES[file])
    finally:
        (copy / file).write_text(source, "utf-8")
        copies.put(copy)


def _run_tests(copy, suite):
    # No bytecode: a mutant as long as its original, written in the same second, would be taken for it.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "FASTSOFTMAX_TEST_BACKENDS": suite.backends}
    run = subprocess.Popen(
        [sys.executable, *PYTEST, *suite.arguments],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = run.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)  # and its children
        run.communicate()
        return "no end"
    if run.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?:\[| - |$)", output, re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {run.returncode}: {output[-200:]}"


def place(mutant):
    """File, line and function."""
    source = (ROOT / mutant.file).read_text("utf-8")
    line = source[: source.index(mutant.old) + len(mutant.old) - len(mutant.old.lstrip())].count("\n") + 1
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.lineno <= line <= node.end_lineno
    ]
    names = ".".join(node.name for node in sorted(around, key=lambda node: node.lineno))
    return f"{mutant.file.removeprefix('fastsoftmax/')} {line}" + (f" `{names}`" if names else "")


def report(outcomes):
    """The page."""
    unnoticed = [outcome for outcome in outcomes if outcome.noticed_by is None]
    equivalent = sum(outcome.expected for outcome in unnoticed)
    lines = [
        HEAD,
        f"{len(outcomes)} mutants: {len(outcomes) - len(unnoticed)} noticed, {equivalent} equivalent, "
        f"{len(unnoticed) - equivalent} survived.",
        "",
        "| place | instead of | stands | noticed by |",
        "|---|---|---|---|",
    ]
    for outcome in outcomes:
        old, new = (_code(text) for text in (outcome.mutant.old, outcome.mutant.new))
        lines.append(f"| {outcome.place} | {old} | {new} | {outcome.verdict} |")
    return "\n".join(lines) + "\n"


def _code(text):
    """In a cell of a table: one line, with its bars escaped."""
    line = " ".join(text.split()).replace("|", "\\|")
    return f"`{line}`" if line else "nothing"


def main(words):
    check_table(MUTANTS)
    chosen = [m for m in MUTANTS if not words or any(word in place(m) for word in words)]
    outcomes = run_all(chosen)
    wrong = [outcome for outcome in outcomes if not outcome.expected]
    if not words:
        REPORT.write_text(report(outcomes), "utf-8")
    return f"{len(wrong)} of {len(outcomes)} mutants are not as expected" if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
