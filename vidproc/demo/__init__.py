"""A synthetic world with known truth: what the embedded models learn from, and what `vidproc demo` is scored on.

`shapes` filled polygons, `people` a jointed figure and its actions, `things` cars, buses, bicycles and dogs,
`scenery` the backgrounds, `world` scenes and archives, `truth` what is in them, `score` how well an index found it,
`sheet` the picture for a person.
"""
