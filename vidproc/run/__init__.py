"""The main job: from an archive to a lake.

pipeline  what happens to one video, step by step. Read this first.
driver    lists, plans, hands out, publishes
away      videos that cannot be looked at tonight
unlisted  videos that the archive lists no longer
remarks   what the tasks of one video say, put together
forecast  `vidproc plan`
"""
