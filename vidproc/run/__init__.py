"""The main job: from an archive to a lake.

pipeline    what happens to one video, step by step. Read this first.
driver      `index`, and the parts below joined
places      the archive and the lake, refused where they cannot be
listing     the archive's objects, read ahead
intake      each object: done already, kept as it is, or due
due         what the lake knows of an object, and whether it is due
workload    the videos in work: their probes and tasks, and how they ended
work        one video in work, and how it ended
publishing  batches of videos on their way into the tables
failures    failed attempts, kept for the tables and for the next run
kept, away  videos that cannot be looked at just now
unlisted    videos that the archive lists no longer
pools       what the workers do, as people are told
executing   where the steps run, and what Ctrl-C does
record      the run's own row
summary     the counts of a run, and its verdict
release     `vidproc retry`
remarks     what the tasks of one video say, put together
forecast    `vidproc plan`
"""
