"""What lies on disk between input and output: arrays, the ledger, the folders."""
