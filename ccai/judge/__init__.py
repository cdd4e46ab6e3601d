"""Models that judge answers, and the exam they sit first."""
