"""A report: facts and pictures as one HTML file that needs nothing from elsewhere.

No script, no font, no address. A Content-Security-Policy says so to the browser too, and names the style sheet by its
hash. Whatever comes from outside (names, labels, tags, errors) is written by `charts.text`: it is never markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from vidproc import __version__
from vidproc.look.charts import bars, text
from vidproc.look.facts import Facts, Label, Night
from vidproc.progress import hms, spell

STYLE = Path(__file__).with_name("report.css")

ADVICE: Mapping[str, str] = {
    "denied": "Let the reader's key see these objects; the next run tries them again.",
    "kms": "Let the reader's key use the key that encrypts these objects; the next run tries them again.",
    "archived": "Restore these objects from their archive tier; the next run indexes them.",
    "unreadable": "Check owner and mode of these files; the next run tries them again.",
    "transient": "The store or a machine failed for a while: run the same command again.",
    "source_changed": "They changed while they were read: run the same command again.",
    "infrastructure": "Machines were lost: run the same command again.",
    "timeout": "Raise limits.time_limit_s or make clips shorter, then `vidproc retry LAKE --class timeout`.",
    "memory": "Raise limits.memory_bytes or make clips shorter, then `vidproc retry LAKE --class memory`.",
    "crash": "Decoding ended its worker: keep such a file for a bug report, or repack it and index it again.",
    "limit": "They ask for more than the limits allow: raise `limits` in the job if they are right to.",
    "decode": "Copy them from their source again: they are damaged. What could be read is indexed.",
    "damaged": "Copy them from their source again.",
    "not_media": "Not videos: leave them out by `--exclude`, or delete them.",
    "empty": "Empty files: an upload was cut off, or never began.",
    "no_frames": "No picture decodes: copy them from their source again.",
    "audio_only": "Sound without pictures: leave them out by `--exclude`.",
    "no_video": "No video inside: leave them out by `--exclude`.",
    "encrypted": "Encrypted: store them decrypted to have them indexed.",
    "unsupported_codec": "No decoder is here for their codec: convert them.",
    "unsupported_container": "Their container is not read: repack them, as MP4 or Matroska.",
    "verify": "Nothing: the fast path was found wrong, and they were decoded plainly instead.",
    "link": "Links to folders outside of the archive: --follow-links goes there.",
    "broken_link": "Mend or remove these links.",
    "hidden": "Nothing: hidden files are left out.",
    "bad_name": "Rename them in UTF-8.",
    "special_file": "Nothing: pipes and devices are no videos.",
    "not_found": "They were deleted since they were listed.",
}
OTHERWISE = "`vidproc failures LAKE --class CLASS` shows each; `vidproc retry LAKE --class CLASS` tries them again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One row in a report's gallery."""

    label: str
    where: str
    """Video and time, in words."""
    detail: str
    """Length and score."""
    jpeg: bytes | None
    reason: str = ""
    """Why there is no picture."""

    @property
    def html(self) -> str:
        if self.jpeg is None:
            seen = f'<div class="none">No picture: {text(self.reason[:400])}</div>'
        else:
            data = base64.b64encode(self.jpeg).decode()
            alt = text(f"{self.label}, {self.detail}. {self.where}")
            seen = f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
        return (
            f"<figure>{seen}<figcaption><strong>{text(self.label[:80])}</strong> {text(self.detail)}"
            f"<small>{text(self.where[-200:])}</small></figcaption></figure>"
        )


def page(facts: Facts, pictures: Mapping[str, Sequence[Picture]]) -> bytes:
    """Return the report as UTF-8. The same facts and pictures give the same bytes."""
    style = STYLE.read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    name = facts.lake.rstrip("/").rpartition("/")[2] or facts.lake
    parts = [
        _head(facts, name),
        *([_empty(facts)] if not facts.videos else [_figures(facts)]),
        _last_night(facts) if facts.night else "",
        _states(facts),
        _problems(facts),
        _labels(facts),
        _times(facts),
        *(_gallery(heading, found) for heading, found in pictures.items() if found),
        _runs(facts),
    ]
    body = "\n".join(filter(None, parts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">\n'
        f"<title>vidproc report: {text(name[:100])}</title>\n<style>{style}</style></head>\n<body>\n{body}\n"
        f"<footer>Written by vidproc {__version__} on {_moment(facts.made_at, facts.zone)}. Times are in "
        f"{text(facts.zone)}. Pictures may show people: share this file as you would share the videos.</footer>\n"
        "</body></html>\n"
    ).encode("utf-8", "backslashreplace")


def _head(facts: Facts, name: str) -> str:
    of = ""
    if len(facts.pipelines) > 1:
        others = ", ".join(p for p in facts.pipelines if p != facts.pipeline)
        of = f"<p>This is of the pipeline <strong>{text(facts.pipeline or 'all together')}</strong>; "
        of += f"the lake also has {text(others)}.</p>" if facts.pipeline else f"the lake has {text(others)}.</p>"
    recorded = ""
    if facts.first_at and facts.last_at:
        span = f"{_moment(facts.first_at, facts.zone)} to {_moment(facts.last_at, facts.zone)}"
        recorded = f"<p>Recorded from {span}.</p>"
    title = f"<p>vidproc report</p><h1>{text(name[:200])}</h1>"
    return f"<header>{title}<p>{text(facts.lake[:400])}</p>{recorded}{of}</header>"


def _empty(facts: Facts) -> str:
    return (
        '<div class="card"><p><strong>Nothing is indexed here yet.</strong></p>'
        "<p>The first run fills this page: <code>vidproc index ARCHIVE LAKE</code>.</p></div>"
    )


def _figures(facts: Facts) -> str:
    figures = [
        ("Videos", f"{facts.videos:,}"),
        ("Length", text(spell(facts.hours * 3600))),
        ("Decoded of what was promised", "-" if facts.coverage is None else f"{_percent(facts.coverage)}"),
        ("Archive", _bytes(facts.bytes)),
        *((name.capitalize(), f"{n:,}") for name, n in facts.rows.items() if n),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    return f'<dl class="figures">{cells}</dl>'


def _last_night(facts: Facts) -> str:
    night: Night = facts.night  # type: ignore[assignment]
    run = night.run
    took = hms((run["ended_at"] - run["started_at"]).total_seconds()) if run.get("ended_at") else "not ended"
    bad = "" if run["outcome"] in ("ok", "running") else ' class="bad"'
    counts = ", ".join(
        f"{run[f'videos_{state}']:,} {state}"
        for state in ("indexed", "partial", "declined", "failed")
        if run.get(f"videos_{state}")
    )
    said = [
        f"<p>Began {_moment(run['started_at'], facts.zone)}, took {took}: <strong{bad}>{text(run['outcome'])}</strong>"
        + (f", {text(run['reason'])}" if run.get("reason") else "")
        + ".</p>",
        f"<p>{counts or 'No video was due'}"
        + (f"; {run['videos_unchanged']:,} were there already" if run.get("videos_unchanged") else "")
        + f". {night.videos:,} videos of this lake are from this run, {text(spell(night.seconds))}.</p>",
    ]
    if night.first_seen:
        said.append(f"<p>Seen for the first time: <strong>{text(', '.join(night.first_seen))}</strong>.</p>")
    new = night.labels and night.videos < sum(facts.states.values())  # else it is what is seen below
    table = _label_table(night.labels[:12], "What it found") if new else ""
    return f'<section><h2>Since the last night</h2><div class="card">{"".join(said)}</div>{table}</section>'


def _states(facts: Facts) -> str:
    if not facts.states:
        return ""
    meaning = {
        "indexed": "Whole, in every table.",
        "partial": "What could be read is indexed; `warnings` and `coverage` say what is missing.",
        "declined": "Not a video that can be used.",
        "failed": "Gave no rows.",
    }
    rows = [[text(state), f"{n:,}", _with_code(meaning.get(state, ""))] for state, n in facts.states.items()]
    away = ""
    if facts.away[0]:
        why = text(facts.away[1])
        away = f"<p>{facts.away[0]:,} could not be looked at by the last run, and keep their rows: {why}.</p>"
    table = _table(["State", "Videos", "**Meaning"], rows)
    return f"<section><h2>How videos ended</h2>{table}{away}</section>"


def _problems(facts: Facts) -> str:
    if not facts.problems:
        return "<section><h2>What failed</h2><p>Nothing.</p></section>" if facts.videos else ""
    rows = [
        [
            text(p.error_class),
            f"{p.videos:,}",
            text(p.status),
            _with_code(ADVICE.get(p.error_class) or OTHERWISE.replace("CLASS", p.error_class)),
            text(p.error or p.uri),
        ]
        for p in facts.problems
    ]
    table = _table(["Class", "Videos", "*State", "**What to do", "**For example"], rows)
    return f"<section><h2>What failed, and what to do</h2>{table}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already. A star before a head: a column of words, not of numbers; two: of
    sentences."""
    kinds = ("", ' class="words"', ' class="words long"')
    css = [kinds[len(head) - len(head.lstrip("*"))] for head in heads]
    head = "".join(f'<th scope="col"{c}>{name.lstrip("*")}</th>' for name, c in zip(heads, css, strict=True))
    names = [name.lstrip("*") for name in heads]
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(
            f'<td{c} data-head="{name}">{cell}</td>' for cell, c, name in zip(row[1:], css[1:], names[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    kind = ' class="stack"' if kinds[2] in css else ""  # sentences do not fit beside each other on a phone
    return f'<div class="wide"><table{kind}>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _labels(facts: Facts) -> str:
    if not facts.labels:
        return ""
    table = _label_table(facts.labels, "Stretches in which something is in view, or happens")
    return f"<section><h2>What was seen</h2>{table}</section>"


def _label_table(labels: Sequence[Label], title: str) -> str:
    rows = [
        [text(one.label[:80]), text(one.kind), f"{one.segments:,}", text(spell(one.seconds)), f"{one.videos:,}"]
        for one in labels
    ]
    return _table(["Label", "*Kind", "Stretches", "Time", "Videos"], rows, title)


def _times(facts: Facts) -> str:
    if not facts.by_hour:
        why = "" if not facts.undated else (
            f"<p>The date of recording is not known of {facts.undated:,} videos, so there is no hour and no day to "
            "show. <code>vidproc index --recorded-at PATTERN</code> takes it from file names.</p>"
        )  # fmt: skip
        return f"<section><h2>When</h2>{why}</section>" if why else ""
    hours = [f"{h:02d}:00" for h in range(24)]
    marks = [f"{h:02d}" if h % 3 == 0 else "" for h in range(24)]
    days = sorted({day for by in facts.by_day.values() for day in by})
    by_day = {label: [by.get(day, 0) for day in days] for label, by in facts.by_day.items()}
    every = max(1, -(-len(days) // 10))
    shown = [_day(day, facts.monthly) for day in days]
    day_marks = [name if i % every == 0 else "" for i, name in enumerate(shown)]
    left_out = ""
    if facts.undated:
        left_out = f'<p class="faint">{facts.undated:,} videos without a date of recording are not in these charts.</p>'
    unit = "month" if facts.monthly else "day"
    return (
        f"<section><h2>When</h2><h3>By hour of day ({text(facts.zone)})</h3>"
        + bars("Stretches by the hour in which they begin", hours, facts.by_hour, marks=marks)
        + f"<h3>By {unit}</h3>"
        + bars(f"Stretches by the {unit} on which they begin", shown, by_day, marks=day_marks)
        + f"{left_out}</section>"
    )


def _gallery(heading: str, pictures: Sequence[Picture]) -> str:
    return f'<section><h2>{text(heading)}</h2><div class="pictures">{"".join(p.html for p in pictures)}</div></section>'


def _runs(facts: Facts) -> str:
    if not facts.runs:
        return ""

    states = ("indexed", "partial", "declined", "failed")
    rows = [
        [
            _moment(run["started_at"], facts.zone),
            text(run["pipeline"]),
            hms((run["ended_at"] - run["started_at"]).total_seconds()) if run.get("ended_at") else "-",
            text(run["outcome"]),
            *(f"{run[f'videos_{state}'] or 0:,}" for state in states),
        ]
        for run in facts.runs
    ]
    heads = ["Began", "*Pipeline", "Took", "*Outcome", *map(str.capitalize, states)]
    return f"<section><h2>The last runs</h2>{_table(heads, rows)}</section>"


def _with_code(sentence: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    parts = sentence.split("`")
    return "".join(f"<code>{text(part)}</code>" if i % 2 else text(part) for i, part in enumerate(parts))


def _moment(moment: datetime, zone: str) -> str:
    try:
        return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError):
        return f"{moment:%Y-%m-%d %H:%M} UTC"


def _day(day: date, monthly: bool) -> str:
    return f"{day:%Y-%m}" if monthly else f"{day:%Y-%m-%d}"


def _percent(share: float) -> str:
    """100 % is said of what is whole, and of nothing else."""
    return "100 %" if share >= 1 else f"{min(share * 100, 99.9):.1f} %"


def _bytes(n: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if n >= size:
            return f"{n / size:,.1f} {unit}"
    return f"{n / 1000:,.0f} kB"
