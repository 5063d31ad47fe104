"""What `import vidproc` gives, in parts. Nothing here imports a heavy library until it is called.

jobs       index, plan: the keywords of a job, and the two calls
lakes      open, Lake: an indexed archive, to be questioned and kept
relations  Relation, Hits: rows that are read when somebody asks for them
networks   load_model, Model: a model for frames that the caller has in memory
"""
