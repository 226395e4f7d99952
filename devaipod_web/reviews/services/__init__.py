"""Verbs about reviews: refresh, promote, reject. Sync and blocking; each opens its own short transactions."""
