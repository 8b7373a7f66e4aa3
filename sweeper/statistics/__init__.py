"""Statistics on plain numbers: how large a difference is, and how sure that is. Opens no file and knows no table."""
