"""What everything else stands on: errors, registries, progress, processes, content keys."""
