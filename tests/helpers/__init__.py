"""What test files share: the toy run, stand-in servers and judges, records to start from."""
