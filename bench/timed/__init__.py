"""What is timed, ours and rivals: each in a process of its own, so that none disturbs or ends the others."""
