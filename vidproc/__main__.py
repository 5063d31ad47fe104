"""`python -m vidproc` is the same as `vidproc`."""

from vidproc.cli import main

main()
