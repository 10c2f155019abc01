"""The classical baseline: features, matches, structure from motion and plane-sweep depth, without any network."""
