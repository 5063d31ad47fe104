"""submit, jobs list, jobs logs, jobs stop: the main job on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidproc.cli.answers import cell, print_json, print_table
from vidproc.cli.options import JsonOption
from vidproc.text import say

app = typer.Typer()
jobs_app = typer.Typer(help="Jobs that were submitted to a cluster.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

HeadAddress = Annotated[str, typer.Option("--address", help="The cluster's head, such as http://head:8265.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `vidproc jobs list` has it.")]


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job file.")],
    *,
    address: HeadAddress,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the log until the job ends.")] = True,
    request_token: Annotated[
        str | None, typer.Option("--request-token", help="The same token is the same job.")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option("--working-dir", help="A folder that travels with the job.")
    ] = None,
    pip: Annotated[list[str] | None, typer.Option("--pip", help="A package the job needs; may be repeated.")] = None,
) -> None:
    """Run a job on a Ray cluster; its outcome is the exit code."""
    from vidproc.runtime.ray.jobs import submit as run_submit

    ended = run_submit(
        job, address, follow=follow, request_token=request_token, working_dir=working_dir, pip=tuple(pip or ()),
        write=say,
    )  # fmt: skip
    say(ended.message)
    raise typer.Exit(ended.exit_code or 0)


@jobs_app.command("list")
def jobs_list(address: HeadAddress, as_json: JsonOption = False) -> None:
    """Jobs on the cluster, the latest first."""
    from vidproc.runtime.ray.jobs import list_jobs

    found = list_jobs(address)
    if as_json:
        print_json(found)
        return
    print_table("jobs", ("id", "name", "status", "exit code", "submitted"), [
        (j.id, j.name or "-", j.status, cell(j.exit_code), cell(j.submitted_at)) for j in found
    ])  # fmt: skip


@jobs_app.command("logs")
def jobs_logs(
    job_id: JobId,
    address: HeadAddress,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
) -> None:
    """What a job printed."""
    from vidproc.runtime.ray.jobs import job_logs

    for line in job_logs(address, job_id, follow=follow):
        say(line.rstrip("\n"))


@jobs_app.command("stop")
def jobs_stop(job_id: JobId, address: HeadAddress) -> None:
    """Have a job stop cleanly; submitting it again goes on where it was."""
    from vidproc.runtime.ray.jobs import stop_job

    say(f"{job_id}: {stop_job(address, job_id).status}")
