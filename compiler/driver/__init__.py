"""The driver: recipe, manager, cache, and what happens to a unit once the passes are done."""
