"""Speaks to the kernel. Leaf functions: no policy, no loop, no logging."""
