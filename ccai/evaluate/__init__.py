"""Arms, suites, and what is measured of them."""
