"""The lake: what its tables hold (schema, rows), how parts are staged and published, and its upkeep."""
