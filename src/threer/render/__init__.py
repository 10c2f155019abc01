"""Pictures of clouds, paths and maps, drawn on the CPU."""
