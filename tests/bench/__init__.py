"""`make bench`: three figures, taken in one run on this machine. See docs/develop/benchmarks.md."""
