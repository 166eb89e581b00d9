"""`python -m pyworkers._lease`: what a master starts, with the socket as stdin and the deadlines as stdout."""

from pyworkers._lease.helper import main

main()
