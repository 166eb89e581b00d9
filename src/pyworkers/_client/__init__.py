"""The verbs' side of the control socket: finds a running instance, asks it, and shows what it says."""
