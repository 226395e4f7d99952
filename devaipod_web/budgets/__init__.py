"""Budgets: what may be spent, held by leases on blocks that each gateway process spends from in memory."""
