"""Values that a search has before it measures: predictors, latency tables, earlier runs, CSVs."""
