"""Cameras and depths of a finished run, made to agree with features seen in several pictures."""
