"""Launchers: each checks its arrays and puts one operation on a stream; none allocates or waits."""
