"""The helper process that keeps a master's rows in a database: the only place that knows which one.

A program of its own, beside the master, for four reasons: a database may take as long as it likes to answer, and the
master waits for nothing; its libraries look names up in a call that blocks; a connection in a process that forks would
be every worker's; and whoever watches over the workers while their master is held up must not be the master.
"""
