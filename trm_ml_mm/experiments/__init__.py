"""Many runs: plan them, run them, and report on them. Only tools use it."""
