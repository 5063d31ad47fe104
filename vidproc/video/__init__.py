"""One video, from an entry of the archive to frames. No other room opens a media file.

archive     a listing -> Video values
probe       Video -> VideoInfo: what the container says, in few reads
plan        VideoInfo -> Tasks, cut at keyframes
decode      Task -> the sampled frames of every grid, in one pass
  sparse      the fast way: only the packets that wanted frames need
  sequential  the plain way: everything in order
  passes      what both share
  pictures    frames scaled, turned upright and kept
verify      the fast way checked against the plain one

container, mp4, edits   what a file says of itself
clock                   when frames are shown
h264                    which pictures others are decoded from
"""
