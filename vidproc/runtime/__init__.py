"""Running steps: here and now (`inline`), or on Ray (`ray`). Knows nothing of video."""
