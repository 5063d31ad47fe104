"""Clips of videos: copied, cut exactly, or encoded.

clip            one clip of one video, in one of three modes
exact           packets copied; at the edges of an exact cut, frames encoded so that they fit
edges           which encoder fits to a source, and how
parameter_sets  the headers of a stream of two encoders
encode          all frames encoded
reading         frames of a time range
plan            answers -> clips, named
rows            answers from a file
work            one clip on a worker, put in its place whole
boxes           boxes and labels drawn into frames
export          all clips by the executor that indexes; finished ones are kept
manifest        what lies in a folder of clips
subtitles       labels and actions as SubRip and WebVTT
reel            clips joined into one file with chapters
"""
