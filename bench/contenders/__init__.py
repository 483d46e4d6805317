"""What takes part in a benchmark: each contender in a process of its own, so that none disturbs or ends the others."""
