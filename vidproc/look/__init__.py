"""Pictures of what a lake says: rows become frames, frames become sheets, and a lake becomes a page to read.

reader   the process that opens videos: one after the other, told what to read by its parent
pool     several readers at a time; one that crashes or hangs costs its own video only
frames   rows -> arrays: the public call
sheet    frames with boxes on one picture
show     a contact sheet, or a folder with one picture a row
charts   numbers as inline SVG
facts    what a report says: asked from the tables
page     facts and pictures as one HTML file
report   the two together, written whole
notify   a small message to a URL when a night is over
night    what follows a run: its report and its message, neither of which can fail it
"""
