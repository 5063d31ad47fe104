"""Answer questions to a lake: SQL that anybody may write, and a search for what is seen in the videos.

One question goes through these files in order; `vidproc.query` is the public face of them all.

  database  open a lake, choose its pipeline, ask
  guard     the first lock: read the statement's tree, refuse what does more than read the lake, and write the
            statement anew from the checked tree
  engine    the second lock: run only what a twin of the engine, which has no files and no network, plans as a
            reading of the lake's tables
  values    write each value exactly
  write     write an answer as a table for people, CSV, JSON or Parquet
  search    the same tables asked by options in place of SQL
"""
