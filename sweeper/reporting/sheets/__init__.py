"""Contact sheets: the pictures of a sweep on pages, with labels."""
