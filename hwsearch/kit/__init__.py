"""The kit: one file that measures models where there is no hwsearch, and what it sends back."""
