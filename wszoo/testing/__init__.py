"""What plugin authors test with: contracts that every remote keeps, and a small zoo to keep them with. Needs pytest."""
