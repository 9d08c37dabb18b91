"""The covering set: every pair of part choices at least once, each trained for 200 steps against a baseline."""
