"""Metrics: pure functions of arrays that return what they measured, units in the names."""
