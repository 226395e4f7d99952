"""`make bench`: its figures, taken in one run on this machine. See docs/develop/benchmarks.md."""
