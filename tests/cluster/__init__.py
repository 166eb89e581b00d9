"""A cluster in simulated time: masters, their clocks, hosts and network, one database, and what must always hold."""
