"""Any daily bars -> a Qlib data folder: imported from files, or simulated."""
