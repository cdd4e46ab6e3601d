"""What is asked of each arm, one suite to a module, and what is measured of its answers."""
