"""One file for each task of `vidproc eval`."""
