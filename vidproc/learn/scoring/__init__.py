"""Scores: predictions or a lake against truth, by the measures of the field."""
