"""Clips of videos: copied, cut exactly, or encoded.

clip            one clip of one video, in one of three modes
exact           packets copied; at the edges of an exact cut, frames encoded so that they fit
edges           which encoder fits to a source, and how
parameter_sets  the headers of a stream of two encoders
encode          all frames encoded
reading         frames of a time range
"""
