"""What every package's tests use: fixtures, a two-process runner, paired timings."""
