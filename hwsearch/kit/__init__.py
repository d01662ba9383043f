"""The kit: one file that measures models where there is no hwsearch, and what comes back from it."""
