"""Closed-form geometry of cameras and pointmaps. Conventions are those of `threer.types`."""
