"""Reports on runs: the HTML page, the picture of the front, the views of terminal and notebook."""
