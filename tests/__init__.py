"""Tests mirror vidproc/; `tests.x` names the helpers that they share."""
