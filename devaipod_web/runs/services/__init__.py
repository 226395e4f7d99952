"""What can be done to a run, one verb a module."""
