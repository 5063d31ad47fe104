"""Media files written byte by byte, so that they can lie, and the truth about each.

FFmpeg's encoders make the packets (`streams`); each container has a module that writes them into a file with any
index, flags, times and headers, right or wrong; `kinds` puts both together into cases whose truth follows from how
they were built, never from what a decoder makes of them.
"""
