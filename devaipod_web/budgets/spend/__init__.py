"""What was spent: over a range of days, by project, agent, model or person; what the month comes to; what changes cost."""
