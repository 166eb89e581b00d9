"""The parent's loop: turns kernel facts into events and effects into system calls, and holds no policy."""
