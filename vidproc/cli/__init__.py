"""The command line. Each command is one call of the Python API, and a way to show what it answers.

app        the commands by name, `main`, and the exit codes
options    options that several commands share, declared once
answers    how an answer is shown: tables and sentences for people, JSON for programs
indexing   index, plan, retry
state      status, failures, runs
questions  query, search
looking    show, report
upkeep     compact, vacuum, forget
models     models list, fetch, check
learning   train, eval, fewshot, relabel, explain, dataset
demo       demo
cluster    submit, jobs list, logs, stop
"""

from __future__ import annotations

from vidproc.cli.app import app, main

__all__ = ["app", "main"]
