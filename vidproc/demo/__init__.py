"""A drawn world with known truth: what the embedded models learn from, and what `vidproc demo` is scored on.

`shapes` holds filled polygons. `poses`, `acts`, `looks` and `figure` make people; `things` makes cars, buses, bicycles
and dogs. `actors` moves them, `passers` and `performance` say who comes and what happens. `scenery` makes backgrounds
(`outdoors` and `indoors`, on a `canvas`), and `scene` puts all of it together. `archive` writes videos, `truth` says
what is in them, `score` measures how well an index found it, and `sheet` draws the contact sheet.
"""
