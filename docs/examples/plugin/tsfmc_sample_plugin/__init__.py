"""One teacher, one student, one pass and one target for tsfmc, each in a file of its own."""
