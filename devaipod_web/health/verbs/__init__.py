"""What can be done: restart one service; take the installation out of work (teardown) and into it (setup)."""
